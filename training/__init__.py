"""How the built-in model is made: `python -m training` trains it on the world of `rekv.world` and exports it.

settings.py    everything that decides a run
models.py      the architectures, stock classes of transformers with new weights
words.py       the tokenizer
clips.py       pictures and labels, drawn from a seed
questions.py   questions about clips, with the frames that each reads
reading.py     the forward pass: frames see a window, a question sees the frames it was given
vision.py      stage 1: the vision tower learns from labels of every token
language.py    stage 2: questions, answers and retrieval
dual.py        the dual encoder, for retrieval by an external model
loop.py        steps, schedule, curves, interruption
team.py        the processes that train together
run.py         all stages, one after the other
curves.py      a picture of how a run went
scores.py      how good a model is, by type, with intervals
export.py      the checkpoint as plain files
"""
