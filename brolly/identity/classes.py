"""What config.json tells: its model_type, the ending of its class, and the keys that make it another thing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brolly.identity.roles import Told, part, role, whole, word, words
from brolly.identity.tables import table

if TYPE_CHECKING:
    from brolly.identity.subject import Subject

SEES = ("vision_config", "visual", "vision_tower", "mm_vision_tower", "vision_encoder", "img_processor", "vit_config",
        "mm_projector_type", "vision_model_type", "vision_cfg")  # fmt: skip
HEARS = ("audio_config", "audio_tower", "mm_audio_tower", "audio_encoder", "audio_cfg", "audio_processor")
# classes whose published config.json has another model's type: Grok 2 calls itself GIT, MiniMax-M2 a MiniMax-01
MISCALLED = {("git", "Grok1ForCausalLM"): "grok", ("minimax", "MiniMaxM2ForCausalLM"): "minimax_m2"}
SPEAKING_CAUSAL = ("fuyu", "git", "phi4_multimodal", "mistral4")  # multimodal, and their class says only ForCausalLM


def by_config(subject: Subject) -> Told | None:
    """config.json's model_type and architectures, with what else it says."""
    config = subject.header.config or subject.json("config.json")
    model_type = word(config, "model_type").lower()
    classes = words(config, "architectures")
    name = classes[0] if classes else word(config, "architectures")
    model_type = MISCALLED.get((model_type, name), model_type)
    types = table("architectures.json")["types"]
    row = types.get(model_type) or types.get(model_type.replace("-", "_"))
    if row is None and name:
        return of_class(name, config)
    if row is None:
        return by_keys(config)
    family, does = _quirks(model_type, row[0], row[1], config)
    if name.startswith("DeepseekOCR") and model_type != "deepseekocr":  # it calls itself a DeepSeek-VL2
        family, does = types["deepseekocr"][:2]
    file, key, value = "config.json", "model_type", model_type
    if name:
        ended = by_ending(name, does, config, row[2] if len(row) > 2 else "")
        if ended != does:
            does, key, value = ended, "architectures", name
    sees, hears = stated(config, SEES), stated(config, HEARS)
    if does in ("llm", "llm-code") and (sees or hears):
        does, key = ("lmm" if sees else "lmm-audio"), sees or hears
        return Told(
            _seeing(family, model_type), does, file, key, "present", "a language model with an encoder of its own"
        )
    speaks = sees or hears or model_type in SPEAKING_CAUSAL
    if role(does).kind == "lmm" and name == f"{row[2]}ForCausalLM" and not speaks:
        return Told(family, "llm", file, "architectures", name, "the text part of a multimodal model, alone")
    if isinstance(config.get("norm_stats"), Mapping) and role(does).kind == "lmm":
        return Told(family, "robot", file, "norm_stats", "present", "statistics of a robot's actions")
    return Told(family, does, file, key, value, "the architecture's name")


def _seeing(family: str, model_type: str) -> str:
    return {"qwen": "Qwen-VL", "llama": "LLaVA", "mistral": "LLaVA", "chatglm": "GLM-4V"}.get(model_type, family)


def _quirks(model_type: str, family: str, does: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """Architectures that serve another purpose, told by a key: Chronos on T5, nucleotides on ESM, proteins on BERT."""
    vocab = whole(config, "vocab_size")
    if isinstance(config.get("chronos_config"), Mapping) or "chronos_pipeline_class" in config:
        return "Chronos", "time-series"
    if model_type == "esm":
        if config.get("is_folding_model") is True:
            return "ESMFold", "protein-structure"
        if vocab is not None and vocab > 1000:  # k-mers of nucleotides; amino acids need 33
            return "Nucleotide Transformer", "dna"
        if word(config, "position_embedding_type") == "absolute":
            return "ESM-1b", "protein"
    if model_type == "bert" and vocab == 30:
        return "ProtBert", "protein"
    if model_type == "t5" and vocab in (128, 144):
        return ("ProtT5" if vocab == 128 else "Ankh"), "protein"
    if model_type == "siglip" and whole(part(config, "text_config"), "vocab_size") == 256_000:  # Gemma's vocabulary
        return "SigLIP 2", does
    if model_type == "stripedhyena" and vocab and vocab > 10_000:
        return "StripedHyena", "llm"
    if model_type == "llava" and word(part(config, "vision_config"), "model_type") == "pixtral":
        return "Pixtral", "lmm"
    if model_type == "vision-encoder-decoder":
        decoder, encoder = (word(part(config, k), "model_type") for k in ("decoder", "encoder"))
        named = {"donut-swin": "Donut", "nougat": "Nougat"}.get(encoder, "TrOCR" if decoder == "trocr" else "")
        return named, "lmm-caption" if decoder == "gpt2" else does
    if model_type in ("glm", "chatglm") and isinstance(config.get("vision_config"), Mapping):
        return "GLM-4V", "lmm"
    return family, does


def by_ending(name: str, does: str, config: Mapping[str, Any], stem: str = "") -> str:
    """The role that a class's ending tells: LlamaForSequenceClassification scores, CLIPVisionModel sees."""
    kind = role(does).kind
    if re.search(r"Reward", name):
        return "reward"
    if re.search(r"EncoderModel$", name) and does.startswith("seq2seq"):
        return "text-encoder"
    if re.search(r"VisionModel|VisionTransformer", name) and kind == "vision-language-embedding":
        return "vision"
    if re.search(r"TextModel", name) and kind == "vision-language-embedding":
        return "text-encoder"
    if re.search(r"Medusa|Eagle\d?|Speculator|DraftModel", name):
        return "draft"
    ending = re.search(r"For(?=[A-Z0-9])\w*$", name)
    match ending[0] if ending else "":
        case "ForSequenceClassification" | "ForTextEncoding" if kind in ("llm", "lmm"):
            return "reward" if _labels(config) == 1 else "llm-classifier"
        case "ForSequenceClassification" | "ForAudioClassification" if kind in ("speech", "audio"):
            return "speech-classifier" if kind == "speech" else "audio-classifier"
        case "ForSequenceClassification" | "ForTokenClassification" | "ForMultipleChoice" | "ForQuestionAnswering":
            return {"text-encoder": "classifier", "llm": "llm-classifier"}.get(kind, does)
        case "ForNextSentencePrediction":
            return "classifier"
        case "ForCTC" | "ForSpeechSeq2Seq" | "ForSpeechToText" | "ForRNNT" | "ForTDT":
            return "asr"
        case "ForTextToSpeech" | "ForTextToWaveform":
            return "tts"
        case "ForXVector" | "ForAudioFrameClassification":
            return "speech-classifier"
        case "ForImageClassification" | "ForImageClassificationWithTeacher":
            return "vision-classifier"
        case "ForVideoClassification":
            return "video-classifier"
        case "ForObjectDetection":
            return "open-detector" if does == "open-detector" else "detector"
        case (
            "ForSemanticSegmentation" | "ForInstanceSegmentation" | "ForUniversalSegmentation" | "ForImageSegmentation"
        ):
            return "segmenter"
        case "ForDepthEstimation":
            return "depth"
        case "ForProteinFolding":
            return "protein-structure"
        case "ForRetrieval":
            return "multimodal-embedder"
        case "ForCausalLM" if does == "text-encoder" and config.get("is_decoder") is True:
            return "llm"
        case "" if stem and name == f"{stem}Model" and kind == "llm" and not does.startswith("seq2seq"):
            return "text-encoder" if "AutoModelForCausalLM" not in part(config, "auto_map") else does
    return does


def _labels(config: Mapping[str, Any]) -> int | None:
    """How many labels a head has; transformers' default is two."""
    if isinstance(config.get("id2label"), Mapping):
        return len(config["id2label"])
    return whole(config, "num_labels")


def stated(config: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The first of the keys that holds something."""
    return next((k for k in keys if config.get(k) not in (None, {}, "", False)), "")


GENERIC = (
    (r"ForCausalLM$|LMHeadModel$", "llm"), (r"ForMaskedLM$", "text-encoder"), (r"ForCTC$", "asr"),
    (r"ForImageClassification$", "vision-classifier"), (r"ForObjectDetection$", "detector"),
    (r"ForSequenceClassification$|ForTokenClassification$", "classifier"), (r"ForSpeechSeq2Seq$", "asr"),
    (r"RewardModel$", "reward"), (r"ForTimeSeries\w*$|ForForecasting$", "time-series"),
    (r"VLA\w*$|ForActionPrediction$", "robot"), (r"Medusa|Eagle\d?|Speculator", "draft"),
)  # fmt: skip


def of_class(
    name: str, config: Mapping[str, Any], file: str = "config.json", key: str = "architectures"
) -> Told | None:
    """By a class's name alone: the longest stem that it begins with, else its ending."""
    types: Mapping[str, list[str]] = table("architectures.json")["types"]
    best, found = "", None
    for model_type, row in types.items():
        stem = row[2] if len(row) > 2 and row[2] else model_type.replace("_", "").replace("-", "")
        if len(stem) > len(best) and name.lower().startswith(stem.lower()):
            rest = name[len(stem) :]
            if re.match(r"(For[A-Z]|LM|Model|With|Encoder|Vision|Text|Backbone|Causal|$)", rest):
                best, found = stem, row
    if found:
        does = by_ending(name, found[1], config, best)
        return Told(found[0], does, file, key, name, "the class's name")
    sees, hears = stated(config, SEES), stated(config, HEARS)
    for pattern, does in GENERIC:
        if re.search(pattern, name):
            if does == "llm" and (sees or hears):
                does = "lmm" if sees else "lmm-audio"
            family = re.split(r"For[A-Z]|LMHead|RewardModel", name)[0]
            return Told(family, does, file, key, name, "a class that is not in the tables; its ending tells")
    if name.endswith("ForConditionalGeneration") and (sees or hears):
        does = "lmm" if sees else "lmm-audio"
        return Told(name[: -len("ForConditionalGeneration")], does, file, sees or hears, "present", "it has an encoder")
    return None


def by_keys(config: Mapping[str, Any]) -> Told | None:
    """config.json without model_type or class: Kokoro, Octo, Prithvi, Keras Hub."""
    if "istftnet" in config and "plbert" in config:
        return Told(
            "Kokoro (StyleTTS 2)", "tts", "config.json", "istftnet", "present", "a vocoder and a phoneme encoder"
        )
    if isinstance(config.get("model"), Mapping) and "observation_tokenizers" in part(config, "model"):
        return Told("Octo", "robot", "config.json", "model.observation_tokenizers", "present", "a robot's observations")
    if isinstance(config.get("chronos_config"), Mapping):
        return Told("Chronos", "time-series", "config.json", "chronos_config", "present", "forecasts")
    if isinstance(config.get("ssm_cfg"), Mapping) and "d_model" in config:
        family = "Mamba 2" if word(part(config, "ssm_cfg"), "layer") == "Mamba2" else "Mamba"
        return Told(family, "llm", "config.json", "ssm_cfg", "present", "the sizes of a state-space model")
    if "medusa_num_heads" in config:
        return Told("Medusa", "draft", "config.json", "medusa_num_heads", "present", "heads that guess ahead")
    if (name := word(config, "class_name")) and word(config, "module").startswith("keras_hub"):
        return of_class(re.sub(r"(Backbone|CausalLM|MaskedLM)$", "", name) + "Model", {}, "config.json", "class_name")
    return None
