"""How the method enters a stock transformers model: one registered attention function, nothing patched.

`hook` registers it, `passes` holds what it does in each kind of forward pass, `kernels` computes
window + sink attention, `rotary` rotates at positions we choose, `probe` refuses what cannot be reproduced.
"""
