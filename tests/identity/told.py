"""What published models are: the keys of their files that tell, and the answer as "family: kind in>out flavours"."""

from __future__ import annotations

from typing import Any


def arch(model_type: str, name: str, **more: Any) -> dict[str, Any]:
    return {"model_type": model_type, "architectures": [name], **more}


# Each row: the repository whose config.json says this (keys that do not matter left out), and the answer.
MODELS = [
    # language models
    ("meta-llama/Llama-2-7b-hf", arch("llama", "LlamaForCausalLM"), "Llama: llm text>text"),
    ("meta-llama/Llama-3.1-8B", arch("llama", "LlamaForCausalLM"), "Llama: llm text>text"),
    ("meta-llama/Llama-3.1-8B-Instruct", arch("llama", "LlamaForCausalLM"), "Llama: llm text>text instruct"),
    ("01-ai/Yi-6B", arch("llama", "LlamaForCausalLM"), "Yi: llm text>text"),
    ("deepseek-ai/deepseek-llm-7b-base", arch("llama", "LlamaForCausalLM"), "DeepSeek LLM: llm text>text base"),
    ("lmsys/vicuna-7b-v1.5", arch("llama", "LlamaForCausalLM"), "Llama: llm text>text"),
    ("HuggingFaceTB/SmolLM2-135M", arch("llama", "LlamaForCausalLM"), "SmolLM: llm text>text"),
    ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", arch("llama", "LlamaForCausalLM"), "TinyLlama: llm text>text instruct"),
    ("codellama/CodeLlama-7b-hf", arch("llama", "LlamaForCausalLM"), "Code Llama: llm text>text code"),
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", arch("qwen2", "Qwen2ForCausalLM"), "Qwen2: llm text>text reasoning"),
    ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", arch("llama", "LlamaForCausalLM"), "Llama: llm text>text reasoning"),
    ("meta-llama/Llama-Guard-3-8B", arch("llama", "LlamaForCausalLM"), "Llama: llm text>text guard"),
    ("mistralai/Mistral-7B-v0.1", arch("mistral", "MistralForCausalLM"), "Mistral: llm text>text"),
    (
        "mistralai/Mixtral-8x7B-v0.1",
        arch("mixtral", "MixtralForCausalLM", num_local_experts=8, num_experts_per_tok=2),
        "Mixtral: llm text>text moe",
    ),
    ("Qwen/Qwen2.5-7B-Instruct", arch("qwen2", "Qwen2ForCausalLM"), "Qwen2: llm text>text instruct"),
    ("Qwen/Qwen2.5-Coder-7B", arch("qwen2", "Qwen2ForCausalLM"), "Qwen2: llm text>text code"),
    ("Qwen/Qwen3-8B-Base", arch("qwen3", "Qwen3ForCausalLM"), "Qwen3: llm text>text base"),
    ("Qwen/Qwen3-30B-A3B", arch("qwen3_moe", "Qwen3MoeForCausalLM", num_experts=128), "Qwen3: llm text>text moe"),
    ("Qwen/Qwen-7B", arch("qwen", "QWenLMHeadModel"), "Qwen: llm text>text"),
    (
        "deepseek-ai/DeepSeek-V3",
        arch("deepseek_v3", "DeepseekV3ForCausalLM", n_routed_experts=256),
        "DeepSeek-V3: llm text>text moe",
    ),
    (
        "moonshotai/Kimi-K2-Instruct",
        arch("kimi_k2", "DeepseekV3ForCausalLM", n_routed_experts=384),
        "Kimi K2: llm text>text instruct,moe",
    ),
    (
        "moonshotai/Moonlight-16B-A3B",
        arch("deepseek_v3", "DeepseekV3ForCausalLM", n_routed_experts=64),
        "Moonlight: llm text>text moe",
    ),
    ("openai/gpt-oss-20b", arch("gpt_oss", "GptOssForCausalLM", num_local_experts=32), "gpt-oss: llm text>text moe"),
    ("google/gemma-2-9b-it", arch("gemma2", "Gemma2ForCausalLM"), "Gemma 2: llm text>text instruct"),
    ("google/gemma-3-1b-it", arch("gemma3_text", "Gemma3ForCausalLM"), "Gemma 3: llm text>text instruct"),
    ("microsoft/phi-2", arch("phi", "PhiForCausalLM"), "Phi: llm text>text"),
    ("microsoft/phi-4", arch("phi3", "Phi3ForCausalLM"), "Phi-4: llm text>text"),
    ("openai-community/gpt2", arch("gpt2", "GPT2LMHeadModel"), "GPT-2: llm text>text"),
    ("EleutherAI/pythia-1.4b", arch("gpt_neox", "GPTNeoXForCausalLM"), "Pythia: llm text>text"),
    ("EleutherAI/gpt-j-6b", arch("gptj", "GPTJForCausalLM"), "GPT-J: llm text>text"),
    ("facebook/opt-1.3b", arch("opt", "OPTForCausalLM"), "OPT: llm text>text"),
    ("bigscience/bloom", arch("bloom", "BloomForCausalLM"), "BLOOM: llm text>text"),
    ("tiiuae/falcon-40b", arch("falcon", "FalconForCausalLM"), "Falcon: llm text>text"),
    ("tiiuae/falcon-7b", arch("RefinedWebModel", "RWForCausalLM"), "Falcon: llm text>text"),
    (
        "THUDM/chatglm3-6b",
        arch("chatglm", "ChatGLMModel", auto_map={"AutoModelForCausalLM": "x.y"}),
        "ChatGLM: llm text>text",
    ),
    ("baichuan-inc/Baichuan2-7B-Chat", arch("baichuan", "BaichuanForCausalLM"), "Baichuan: llm text>text instruct"),
    ("internlm/internlm2-7b", arch("internlm2", "InternLM2ForCausalLM"), "InternLM2: llm text>text"),
    ("state-spaces/mamba-2.8b-hf", arch("mamba", "MambaForCausalLM"), "Mamba: llm text>text"),
    ("RWKV/rwkv-4-169m-pile", arch("rwkv", "RwkvForCausalLM"), "RWKV: llm text>text"),
    ("ai21labs/Jamba-v0.1", arch("jamba", "JambaForCausalLM", num_experts=16), "Jamba: llm text>text moe"),
    ("bigcode/starcoder2-3b", arch("starcoder2", "Starcoder2ForCausalLM"), "StarCoder2: llm text>text code"),
    ("GSAI-ML/LLaDA-8B-Instruct", arch("llada", "LLaDAModelLM"), "LLaDA: llm text>text instruct"),
    ("google-t5/t5-base", arch("t5", "T5ForConditionalGeneration", vocab_size=32128), "T5: llm text>text"),
    ("google/flan-t5-xl", arch("t5", "T5ForConditionalGeneration", vocab_size=32128), "Flan-T5: llm text>text"),
    ("facebook/bart-large", arch("bart", "BartModel"), "BART: llm text>text"),
    # language models with eyes and ears
    (
        "llava-hf/llava-1.5-7b-hf",
        arch("llava", "LlavaForConditionalGeneration", vision_config={"a": 1}),
        "LLaVA: lmm text,image>text",
    ),
    (
        "liuhaotian/llava-v1.5-7b",
        arch("llava_llama", "LlavaLlamaForCausalLM", mm_vision_tower="openai/clip"),
        "LLaVA: lmm text,image>text",
    ),
    (
        "mistral-community/pixtral-12b",
        arch("llava", "LlavaForConditionalGeneration", vision_config={"model_type": "pixtral"}),
        "Pixtral: lmm text,image>text",
    ),
    (
        "Qwen/Qwen2.5-VL-7B-Instruct",
        arch("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"),
        "Qwen2.5-VL: lmm text,image,video>text instruct",
    ),
    ("Qwen/Qwen-VL", arch("qwen", "QWenLMHeadModel", visual={"heads": 16}), "Qwen-VL: lmm text,image>text"),
    (
        "Qwen/Qwen2-Audio-7B",
        arch("qwen2_audio", "Qwen2AudioForConditionalGeneration"),
        "Qwen2-Audio: lmm text,audio>text",
    ),
    (
        "Qwen/Qwen2.5-Omni-7B",
        arch("qwen2_5_omni", "Qwen2_5OmniModel"),
        "Qwen2.5-Omni: lmm text,image,audio,video>text,audio",
    ),
    (
        "google/gemma-3-4b-it",
        arch("gemma3", "Gemma3ForConditionalGeneration", vision_config={"a": 1}),
        "Gemma 3: lmm text,image>text instruct",
    ),
    (
        "meta-llama/Llama-4-Scout-17B-16E",
        arch("llama4", "Llama4ForConditionalGeneration", text_config={"num_local_experts": 16}, vision_config={"a": 1}),
        "Llama 4: lmm text,image>text moe",
    ),
    (
        "meta-llama/Llama-3.2-11B-Vision",
        arch("mllama", "MllamaForConditionalGeneration", vision_config={"a": 1}),
        "Llama 3.2 Vision: lmm text,image>text",
    ),
    (
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        arch("mistral3", "Mistral3ForConditionalGeneration", vision_config={"a": 1}),
        "Mistral: lmm text,image>text instruct",
    ),
    (
        "microsoft/Phi-4-multimodal-instruct",
        arch("phi4mm", "Phi4MMForCausalLM"),
        "Phi-4-multimodal: lmm text,image,audio>text instruct",
    ),
    (
        "microsoft/Phi-3.5-vision-instruct",
        arch("phi3_v", "Phi3VForCausalLM", img_processor={"a": 1}),
        "Phi-3-vision: lmm text,image>text instruct",
    ),
    ("vikhyatk/moondream2", arch("moondream1", "HfMoondream"), "Moondream: lmm text,image>text"),
    ("deepseek-ai/Janus-Pro-7B", arch("multi_modality", "MultiModalityCausalLM"), "Janus: lmm text,image>text,image"),
    ("adept/fuyu-8b", arch("fuyu", "FuyuForCausalLM"), "Fuyu: lmm text,image>text"),
    (
        "mistralai/Voxtral-Mini-3B-2507",
        arch("voxtral", "VoxtralForConditionalGeneration"),
        "Voxtral: lmm text,audio>text",
    ),
    (
        "deepseek-ai/DeepSeek-OCR",
        arch("deepseek_vl_v2", "DeepseekOCRForCausalLM"),
        "DeepSeek-OCR: lmm text,image>text ocr",
    ),
    ("Salesforce/blip2-opt-2.7b", arch("blip-2", "Blip2ForConditionalGeneration"), "BLIP-2: lmm text,image>text"),
    # what is often taken for an LLM, and is none
    (
        "openai/clip-vit-large-patch14",
        arch("clip", "CLIPModel"),
        "CLIP: vision-language-embedding text,image>embedding",
    ),
    (
        "google/siglip-so400m-patch14-384",
        arch("siglip", "SiglipModel"),
        "SigLIP: vision-language-embedding text,image>embedding",
    ),
    (
        "google-bert/bert-base-uncased",
        arch("bert", "BertForMaskedLM", vocab_size=30522),
        "BERT: text-encoder text>embedding",
    ),
    (
        "FacebookAI/xlm-roberta-base",
        arch("xlm-roberta", "XLMRobertaForMaskedLM"),
        "XLM-RoBERTa: text-encoder text>embedding",
    ),
    (
        "answerdotai/ModernBERT-base",
        arch("modernbert", "ModernBertForMaskedLM"),
        "ModernBERT: text-encoder text>embedding",
    ),
    (
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        arch("distilbert", "DistilBertForSequenceClassification"),
        "DistilBERT: text-encoder text>label classifier",
    ),
    (
        "BAAI/bge-reranker-v2-m3",
        arch("xlm-roberta", "XLMRobertaForSequenceClassification", id2label={"0": "LABEL_0"}),
        "BGE: text-encoder text>score reranker",
    ),
    ("Qwen/Qwen3-Reranker-0.6B", arch("qwen3", "Qwen3ForCausalLM"), "Qwen3: text-encoder text>score reranker"),
    ("Qwen/Qwen3-Embedding-0.6B", arch("qwen3", "Qwen3ForCausalLM"), "Qwen3: text-encoder text>embedding embedder"),
    (
        "nomic-ai/nomic-embed-text-v1.5",
        arch("nomic_bert", "NomicBertModel"),
        "Nomic Embed: text-encoder text>embedding embedder",
    ),
    ("Alibaba-NLP/gte-large-en-v1.5", arch("new", "NewModel"), "GTE: text-encoder text>embedding"),
    ("google/t5-v1_1-xxl", arch("t5", "T5EncoderModel", vocab_size=32128), "T5: text-encoder text>embedding"),
    (
        "Skywork/Skywork-Reward-Llama-3.1-8B",
        arch("llama", "LlamaForSequenceClassification", id2label={"0": "LABEL_0"}),
        "Llama: other text>score reward",
    ),
    ("Qwen/Qwen2.5-Math-PRM-7B", arch("qwen2", "Qwen2ForProcessRewardModel"), "Qwen2: other text>score reward"),
    (
        "facebook/nllb-200-distilled-600M",
        arch("m2m_100", "M2M100ForConditionalGeneration"),
        "NLLB: other text>text translation",
    ),
    # sound
    ("openai/whisper-large-v3", arch("whisper", "WhisperForConditionalGeneration"), "Whisper: speech audio>text"),
    ("facebook/wav2vec2-base-960h", arch("wav2vec2", "Wav2Vec2ForCTC"), "wav2vec 2.0: speech audio>text"),
    ("facebook/wav2vec2-base", arch("wav2vec2", "Wav2Vec2ForPreTraining"), "wav2vec 2.0: speech audio>embedding"),
    ("suno/bark", arch("bark", "BarkModel"), "Bark: audio text>audio"),
    ("facebook/musicgen-small", arch("musicgen", "MusicgenForConditionalGeneration"), "MusicGen: music text>audio"),
    ("facebook/encodec_24khz", arch("encodec", "EncodecModel"), "EnCodec: audio audio>tokens,audio codec"),
    ("facebook/mms-tts-eng", arch("vits", "VitsModel"), "VITS: speech text>audio"),
    ("canopylabs/orpheus-3b-0.1-ft", arch("llama", "LlamaForCausalLM"), "Orpheus: speech text>audio"),
    ("laion/clap-htsat-unfused", arch("clap", "ClapModel"), "CLAP: audio text,audio>embedding"),
    (
        "facebook/seamless-m4t-v2-large",
        arch("seamless_m4t_v2", "SeamlessM4Tv2Model"),
        "SeamlessM4T: speech text,audio>text,audio translation",
    ),
    # pictures
    ("facebook/sam-vit-huge", arch("sam", "SamModel"), "SAM: vision image>mask"),
    ("google/vit-base-patch16-224", arch("vit", "ViTForImageClassification"), "ViT: vision image>label classifier"),
    ("facebook/dinov2-base", arch("dinov2", "Dinov2Model"), "DINOv2: vision image>embedding"),
    ("microsoft/rad-dino", arch("dinov2", "Dinov2Model"), "RAD-DINO: vision image>embedding"),
    ("facebook/detr-resnet-50", arch("detr", "DetrForObjectDetection"), "DETR: vision image>label"),
    (
        "depth-anything/Depth-Anything-V2-Small-hf",
        arch("depth_anything", "DepthAnythingForDepthEstimation"),
        "Depth Anything: vision image>image",
    ),
    (
        "microsoft/trocr-base-handwritten",
        arch("vision-encoder-decoder", "VisionEncoderDecoderModel", decoder={"model_type": "trocr"}),
        "TrOCR: vision image>text ocr",
    ),
    (
        "IDEA-Research/grounding-dino-base",
        arch("grounding-dino", "GroundingDinoForObjectDetection"),
        "Grounding DINO: vision text,image>label",
    ),
    # science, robots, numbers
    (
        "facebook/esm2_t33_650M_UR50D",
        arch("esm", "EsmForMaskedLM", vocab_size=33, position_embedding_type="rotary"),
        "ESM-2: protein protein>embedding",
    ),
    (
        "facebook/esmfold_v1",
        arch("esm", "EsmForProteinFolding", vocab_size=33, is_folding_model=True),
        "ESMFold: protein protein>structure",
    ),
    (
        "InstaDeepAI/nucleotide-transformer-500m-human-ref",
        arch("esm", "EsmForMaskedLM", vocab_size=4105),
        "Nucleotide Transformer: scientific dna>embedding",
    ),
    ("Rostlab/prot_bert", arch("bert", "BertForMaskedLM", vocab_size=30), "ProtBert: protein protein>embedding"),
    ("nferruz/ProtGPT2", arch("gpt2", "GPT2LMHeadModel"), "ProtGPT2: protein protein>protein"),
    (
        "ctheodoris/Geneformer",
        arch("bert", "BertForMaskedLM", vocab_size=25426),
        "Geneformer: scientific tabular>embedding",
    ),
    (
        "togethercomputer/evo-1-131k-base",
        arch("stripedhyena", "StripedHyenaModelForCausalLM", vocab_size=512),
        "Evo: scientific dna>dna",
    ),
    (
        "seyonec/ChemBERTa-zinc-base-v1",
        arch("roberta", "RobertaForMaskedLM"),
        "ChemBERTa: scientific molecule>embedding",
    ),
    ("openvla/openvla-7b", arch("openvla", "OpenVLAForActionPrediction"), "OpenVLA: robotics text,image>action"),
    ("nvidia/GR00T-N1.5-3B", arch("gr00t_n1_5", "GR00T_N1_5"), "GR00T: robotics text,image>action"),
    (
        "lerobot/smolvla_base",
        {"type": "smolvla", "input_features": {}, "output_features": {}},
        "SmolVLA: robotics text,image>action",
    ),
    (
        "lerobot/act_aloha_sim_insertion_human",
        {"type": "act", "input_features": {}, "output_features": {}},
        "ACT: robotics image>action",
    ),
    (
        "amazon/chronos-t5-small",
        arch("t5", "T5ForConditionalGeneration", chronos_config={"prediction_length": 64}, vocab_size=4096),
        "Chronos: time-series time-series>time-series",
    ),
    (
        "google/timesfm-2.0-500m-pytorch",
        arch("timesfm", "TimesFmModelForPrediction"),
        "TimesFM: time-series time-series>time-series",
    ),
    (
        "Maple728/TimeMoE-50M",
        arch("time_moe", "TimeMoeForPrediction", num_experts=8),
        "Time-MoE: time-series time-series>time-series moe",
    ),
]


# class name in model_index.json, as in the repository named
PIPELINES = [
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "StableDiffusionPipeline", "Stable Diffusion: image text>image"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "StableDiffusionXLPipeline", "SDXL: image text>image"),
    ("stabilityai/stable-diffusion-xl-refiner-1.0", "StableDiffusionXLImg2ImgPipeline", "SDXL: image text,image>image"),
    (
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "StableDiffusion3Pipeline",
        "Stable Diffusion 3: image text>image",
    ),
    ("black-forest-labs/FLUX.1-dev", "FluxPipeline", "FLUX: image text>image"),
    ("black-forest-labs/FLUX.1-Kontext-dev", "FluxKontextPipeline", "FLUX: image text,image>image"),
    ("Qwen/Qwen-Image", "QwenImagePipeline", "Qwen-Image: image text>image"),
    ("google/ddpm-cifar10-32", "DDPMPipeline", "DDPM: image >image"),
    ("THUDM/CogVideoX-5b", "CogVideoXPipeline", "CogVideoX: video text>video"),
    ("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "WanImageToVideoPipeline", "Wan: video text,image>video"),
    (
        "stabilityai/stable-video-diffusion-img2vid",
        "StableVideoDiffusionPipeline",
        "Stable Video Diffusion: video image>video",
    ),
    ("stabilityai/stable-audio-open-1.0", "StableAudioPipeline", "Stable Audio: audio text>audio"),
    ("ucsd-reach/musicldm", "MusicLDMPipeline", "MusicLDM: music text>audio"),
    ("prs-eth/marigold-depth-v1-1", "MarigoldDepthPipeline", "Marigold: vision image>image"),
    ("openai/shap-e", "ShapEPipeline", "Shap-E: other text>3d"),
]


# names and shapes as the families' own files have them
TENSORS = [
    (
        ["layers.0.attention.wq.weight", "layers.0.feed_forward.w1.weight", "tok_embeddings.weight"],
        "Llama: llm text>text",
    ),
    (
        ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.gate_proj.weight", "model.embed_tokens.weight"],
        "None: llm text>text",
    ),
    (
        ["model.layers.0.block_sparse_moe.experts.0.w1.weight", "model.layers.0.self_attn.q_proj.weight"],
        "Mixtral: llm text>text",
    ),
    (["wpe.weight", "h.0.attn.c_attn.weight"], "GPT-2: llm text>text"),
    (["blocks.0.att.time_decay"], "RWKV: llm text>text"),
    (
        ["language_model.model.layers.0.self_attn.q_proj.weight", "multi_modal_projector.linear_1.weight"],
        "None: lmm text,image>text",
    ),
    (
        [
            "visual.transformer.resblocks.0.attn.in_proj_weight",
            "transformer.resblocks.0.attn.in_proj_weight",
            "logit_scale",
        ],
        "CLIP: vision-language-embedding text,image>embedding",
    ),
    (["encoder.blocks.0.attn.query.weight", "decoder.blocks.0.cross_attn.query.weight"], "Whisper: speech audio>text"),
    (
        [
            "image_encoder.blocks.0.attn.qkv.weight",
            "mask_decoder.transformer.layers.0.norm1.weight",
            "prompt_encoder.pe_layer.x",
        ],
        "SAM: vision image>mask",
    ),
    (
        [
            "model.diffusion_model.double_blocks.0.img_attn.qkv.weight",
            "model.diffusion_model.single_blocks.0.linear1.weight",
        ],
        "FLUX: image text>image",
    ),
    (
        [
            "model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight",
            "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
        ],
        "Stable Diffusion 3: image text>image",
    ),
    (
        ["model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.1.model.ln_final.weight"],
        "SDXL: image text>image",
    ),
    (
        ["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.transformer.text_model.x"],
        "Stable Diffusion: image text>image",
    ),
    (
        ["alphafold/alphafold_iteration/evoformer/evoformer_iteration/x//weights"],
        "AlphaFold 2: protein protein>structure",
    ),
    (
        ["encoder.sentence_encoder.layers.0.self_attn.k_proj.weight", "encoder.lm_head.weight"],
        "ESM-2: protein protein>embedding",
    ),
    (
        ["vision_backbone.featurizer.blocks.0.attn.qkv.weight", "language_model.model.norm.weight"],
        "OpenVLA: robotics text,image>action",
    ),
    (
        ["encoder.down.0.block.0.conv1.weight", "decoder.up.0.block.0.conv1.weight", "post_quant_conv.weight"],
        "None: image image>image vae",
    ),
    (
        ["bert.encoder.layer.0.attention.self.query.weight", "bert.embeddings.word_embeddings.weight"],
        "BERT: text-encoder text>embedding",
    ),
    (
        ["encoder.block.0.layer.0.SelfAttention.q.weight", "decoder.block.0.layer.1.EncDecAttention.q.weight"],
        "T5: llm text>text",
    ),
    (["state.0.exp_avg", "state.0.exp_avg_sq", "state.0.step"], "None: other > optimizer"),
]


GGUFS = [
    ({"general.architecture": "llama", "general.name": "Meta Llama 3.1 8B Instruct"}, "Llama: llm text>text instruct"),
    ({"general.architecture": "llama", "general.name": "Mistral 7B Instruct v0.3"}, "Mistral: llm text>text instruct"),
    (
        {"general.architecture": "llama", "llama.expert_count": 8, "general.name": "mixtral"},
        "Mixtral: llm text>text moe",
    ),
    (
        {"general.architecture": "qwen3", "tokenizer.chat_template": "{% if enable_thinking %}<think>"},
        "Qwen3: llm text>text instruct,reasoning",
    ),
    ({"general.architecture": "gpt-oss", "gpt-oss.expert_count": 32}, "gpt-oss: llm text>text moe"),
    (
        {"general.architecture": "deepseek2", "general.name": "DeepSeek R1", "deepseek2.expert_count": 256},
        "DeepSeek-V3: llm text>text reasoning,moe",
    ),
    ({"general.architecture": "gemma3"}, "Gemma 3: llm text>text"),
    ({"general.architecture": "bert", "bert.pooling_type": 2}, "BERT: text-encoder text>embedding embedder"),
    ({"general.architecture": "bert", "bert.pooling_type": 4}, "BERT: text-encoder text>score reranker"),
    ({"general.architecture": "qwen3", "qwen3.pooling_type": 3}, "Qwen3: text-encoder text>embedding embedder"),
    ({"general.architecture": "t5encoder"}, "T5: text-encoder text>embedding"),
    (
        {"general.architecture": "clip", "general.type": "mmproj", "clip.has_vision_encoder": True},
        "None: vision image>embedding",
    ),
    ({"general.architecture": "flux"}, "FLUX: image text>image"),
    ({"general.architecture": "wavtokenizer-dec"}, "WavTokenizer: audio audio>audio vocoder"),
    ({"general.architecture": "made-up-here"}, "None: None >"),
]
