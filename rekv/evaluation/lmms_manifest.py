"""What lmms-eval reads at its every start, of every model: kept apart from the model, which takes seconds to import."""

from lmms_eval.models.registry_v2 import ModelManifest

MANIFEST = ModelManifest(model_id="rekv", simple_class_path="rekv.evaluation.lmms_eval.ReKV")
