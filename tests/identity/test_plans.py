"""Parameters from the config alone, against the real networks: transformers and diffusers build them without memory.

The configs have the numbers that the publishers' config.json files have, as far as they count; names say whose.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brolly.identity.plans import TABLE, context_of, counted, defaults, plan

Config = dict[str, Any]


def of(kind: str, architecture: str | None = None, **keys: Any) -> Config:
    """A config.json of transformers."""
    named = {"architectures": [architecture]} if architecture else {}
    return {"model_type": kind, **named, **keys}


def diffuser(name: str, **keys: Any) -> Config:
    """A config.json of diffusers."""
    return {"_class_name": name, **keys}


def built(config: Config) -> int:
    """The parameters of the real network, built on torch's meta device."""
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        if "_class_name" in config:
            library = pytest.importorskip("diffusers")
            network = getattr(library, config["_class_name"]).from_config(dict(config))
        else:
            library = pytest.importorskip("transformers")
            keys = {k: v for k, v in config.items() if k != "model_type"}
            whole = library.AutoConfig.for_model(config["model_type"], **json.loads(json.dumps(keys)))
            named = config.get("architectures")
            network = getattr(library, named[0])(whole) if named else library.AutoModel.from_config(whole)
    return sum(p.numel() for p in network.parameters())


SEVEN = {str(i): "" for i in range(7)}
DEBERTA_V3 = {
    "attention_head_size": 64, "max_relative_positions": -1, "norm_rel_ebd": "layer_norm", "pos_att_type": "p2c|c2p",
    "position_biased_input": False, "position_buckets": 256, "relative_attention": True, "share_att_key": True,
    "type_vocab_size": 0, "vocab_size": 128100, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072,
}  # fmt: skip
ESM2_8M = {
    "vocab_size": 33, "hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 20, "intermediate_size": 1280,
    "max_position_embeddings": 1026, "position_embedding_type": "rotary", "emb_layer_norm_before": False,
}  # fmt: skip
ENCODERS = {
    "albert-base-v2": of(
        "albert", "AlbertForMaskedLM", hidden_size=768, intermediate_size=3072, num_attention_heads=12
    ),
    "bert-base-uncased": of("bert", "BertForMaskedLM"),
    "bert, pre-training": of("bert", "BertForPreTraining"),
    "bert, no class": of("bert"),
    "bigbird-roberta-base": of("big_bird", "BigBirdForPreTraining"),
    "deberta-base": of(
        "deberta",
        "DebertaForMaskedLM",
        relative_attention=True,
        pos_att_type="c2p|p2c",
        position_biased_input=False,
        type_vocab_size=0,
        max_relative_positions=-1,
    ),
    "deberta-v3-base": of("deberta-v2", None, **DEBERTA_V3),
    "deberta-v3, classifier": of("deberta-v2", "DebertaV2ForSequenceClassification", **DEBERTA_V3, id2label=SEVEN),
    "deberta-v2-xlarge": of("deberta-v2", "DebertaV2ForMaskedLM", conv_kernel_size=3, conv_act="gelu", **DEBERTA_V3),
    "distilbert sst-2": of("distilbert", "DistilBertForSequenceClassification"),
    "electra-base-discriminator": of("electra", "ElectraForPreTraining", embedding_size=768, hidden_size=768),
    "electra-small-generator": of("electra", "ElectraForMaskedLM", embedding_size=128, hidden_size=64),
    "longformer-base": of("longformer", "LongformerForMaskedLM", attention_window=[512] * 12),
    "modernbert-base": of("modernbert", "ModernBertForMaskedLM"),
    "all-mpnet-base-v2": of("mpnet", "MPNetForMaskedLM"),
    "xlm-roberta-base": of("xlm-roberta", "XLMRobertaForMaskedLM", vocab_size=250002, max_position_embeddings=514),
    "bge-reranker": of("xlm-roberta", "XLMRobertaForSequenceClassification", id2label={"0": "LABEL_0"}),
    "roberta, tokens": of("roberta", "RobertaForTokenClassification", id2label=SEVEN),
    "xlnet-base": of("xlnet", "XLNetLMHeadModel", d_model=768, d_inner=3072, n_head=12, n_layer=12),
    "esm2_t6_8M": of("esm", "EsmForMaskedLM", **ESM2_8M),
    "esmfold_v1": of(
        "esm", "EsmForProteinFolding", is_folding_model=True, vocab_list=None, esmfold_config={}, **ESM2_8M
    ),
    "t5-small": of("t5", "T5ForConditionalGeneration"),
    "t5 v1.1, encoder": of("t5", "T5EncoderModel", feed_forward_proj="gated-gelu", d_ff=1024, num_heads=6),
    "umt5-small": of("umt5", "UMT5EncoderModel", feed_forward_proj="gated-gelu"),
    "bart-base": of("bart", "BartModel", d_model=768, encoder_layers=6, decoder_layers=6, encoder_ffn_dim=3072),
    "bart-large-mnli": of("bart", "BartForSequenceClassification"),
    "mbart-large-50": of("mbart", "MBartForConditionalGeneration", vocab_size=250054),
    "pegasus-xsum": of("pegasus", "PegasusForConditionalGeneration", vocab_size=96103, max_position_embeddings=512),
    "opus-mt": of(
        "marian", "MarianMTModel", d_model=512, encoder_layers=6, decoder_layers=6, max_position_embeddings=512
    ),
    "nllb-200-distilled-600M": of("m2m_100", "M2M100ForConditionalGeneration", vocab_size=256206),
    "led-base": of("led", "LEDForConditionalGeneration", d_model=768, attention_window=[1024] * 12),
    "prophetnet": of("prophetnet", "ProphetNetForConditionalGeneration"),
}
SIGLIP_400M = {
    "hidden_size": 1152, "image_size": 224, "intermediate_size": 4304, "model_type": "siglip_vision_model",
    "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
CLIP_H = {
    "projection_dim": 1024,
    "text_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24},
    "vision_config": {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16,
                      "num_hidden_layers": 32, "patch_size": 14},
}  # fmt: skip
CLIP_L_336 = {
    "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
    "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14,
}  # fmt: skip
VISION = {
    "clip-vit-base-patch32": of("clip", "CLIPModel", text_config={}, vision_config={}),
    "CLIP-ViT-H-14": of("clip", "CLIPModel", **CLIP_H),
    "clip text with projection": of("clip_text_model", "CLIPTextModelWithProjection", projection_dim=256),
    "siglip-base-patch16-224": of("siglip", "SiglipModel"),
    "siglip2 naflex": of("siglip2", "Siglip2Model"),
    "chinese-clip": of("chinese_clip", "ChineseCLIPModel"),
    "owlvit-base": of("owlvit", "OwlViTForObjectDetection"),
    "owlv2-base": of("owlv2", "Owlv2ForObjectDetection"),
    "blip-image-captioning-base": of("blip", "BlipForConditionalGeneration"),
    "clap-htsat-unfused": of("clap", "ClapModel"),
    "vit-base-patch16-224": of("vit", "ViTForImageClassification", id2label=SEVEN),
    "deit, distilled": of("deit", "DeiTForImageClassificationWithTeacher", id2label=SEVEN),
    "beit-base": of("beit", "BeitForImageClassification", use_relative_position_bias=True, id2label=SEVEN),
    "vit-mae-base": of("vit_mae", "ViTMAEForPreTraining"),
    "videomae-base": of("videomae", "VideoMAEForPreTraining", use_mean_pooling=False, image_size=32, num_frames=4),
    "swin-tiny": of("swin", "SwinForImageClassification", id2label=SEVEN),
    "swinv2-tiny": of("swinv2", "Swinv2ForImageClassification", window_size=8, image_size=256),
    "convnext-tiny": of("convnext", "ConvNextForImageClassification", id2label=SEVEN),
    "convnextv2-tiny": of("convnextv2", "ConvNextV2ForImageClassification", id2label=SEVEN),
    "resnet-50": of("resnet", "ResNetForImageClassification", id2label=SEVEN),
    "resnet-18": of("resnet", "ResNetForImageClassification", layer_type="basic", depths=[2, 2, 2, 2],
                    hidden_sizes=[64, 128, 256, 512]),
    "dinov2-base": of("dinov2", "Dinov2Model", image_size=518, patch_size=14),
    "dinov2-giant": of("dinov2", "Dinov2Model", image_size=518, patch_size=14, use_swiglu_ffn=True, hidden_size=1536,
                       num_attention_heads=24),
    "dinov2-with-registers": of("dinov2_with_registers", "Dinov2WithRegistersModel", image_size=518, patch_size=14),
    "dinov3-vits16plus": of("dinov3_vit", "DINOv3ViTModel", use_gated_mlp=True, num_register_tokens=4, key_bias=False),
    "sam-vit-base": of("sam", "SamModel"),
    "segformer-b0": of("segformer", "SegformerForSemanticSegmentation", id2label=SEVEN),
    "yolos-small": of("yolos", "YolosForObjectDetection", id2label=SEVEN),
    "detr": of("detr", "DetrForObjectDetection", use_timm_backbone=False, backbone=None, use_pretrained_backbone=False,
               backbone_config={"model_type": "resnet", "out_features": ["stage4"]}, id2label=SEVEN),
    "dpt-large": of("dpt", "DPTForDepthEstimation", hidden_size=1024, intermediate_size=4096, num_attention_heads=16,
                    neck_hidden_sizes=[256, 512, 1024, 1024]),
    "depth-anything-small": of(
        "depth_anything", "DepthAnythingForDepthEstimation",
        backbone_config={"model_type": "dinov2", "image_size": 518, "hidden_size": 384, "num_attention_heads": 6,
                         "patch_size": 14, "out_indices": [9, 10, 11, 12], "reshape_hidden_states": False}),
    "trocr-base": of(
        "vision-encoder-decoder", "VisionEncoderDecoderModel",
        encoder={"model_type": "vit", "hidden_size": 768, "image_size": 384, "qkv_bias": False},
        decoder={"model_type": "trocr", "add_cross_attention": True, "is_decoder": True, "d_model": 1024,
                 "cross_attention_hidden_size": 768}),
    "donut-base": of(
        "vision-encoder-decoder", "VisionEncoderDecoderModel",
        encoder={"model_type": "donut-swin", "depths": [2, 2, 14, 2], "embed_dim": 128, "image_size": [2560, 1920],
                 "num_heads": [4, 8, 16, 32], "window_size": 10, "hidden_size": 1024},
        decoder={"model_type": "mbart", "add_cross_attention": True, "is_decoder": True, "decoder_layers": 4,
                 "vocab_size": 57525, "max_position_embeddings": 1536}),
    "vit-gpt2-image-captioning": of(
        "vision-encoder-decoder", "VisionEncoderDecoderModel", encoder={"model_type": "vit"},
        decoder={"model_type": "gpt2", "n_embd": 768, "add_cross_attention": True, "is_decoder": True}),
}  # fmt: skip
SOUNDS = {
    "whisper-tiny": of("whisper", "WhisperForConditionalGeneration"),
    "whisper-large-v3-turbo": of("whisper", "WhisperForConditionalGeneration", d_model=1280, encoder_layers=32,
                                 decoder_layers=4, encoder_ffn_dim=5120, decoder_ffn_dim=5120, num_mel_bins=128,
                                 vocab_size=51866, encoder_attention_heads=20, decoder_attention_heads=20),
    "wav2vec2-base-960h": of("wav2vec2", "Wav2Vec2ForCTC"),
    "wav2vec2, pre-training": of("wav2vec2", "Wav2Vec2ForPreTraining"),
    "mms-1b, small": of("wav2vec2", "Wav2Vec2ForCTC", do_stable_layer_norm=True, feat_extract_norm="layer",
                        conv_bias=True, mask_time_prob=0.0, adapter_attn_dim=16),
    "hubert-base": of("hubert", "HubertModel"),
    "wavlm-base": of("wavlm", "WavLMModel"),
    "ast-audioset": of("audio-spectrogram-transformer", "ASTForAudioClassification", id2label=SEVEN),
    "encodec_24khz": of("encodec", "EncodecModel"),
    "encodec_48khz": of("encodec", "EncodecModel", audio_channels=2, norm_type="time_group_norm"),
    "bark-small": of("bark", "BarkModel"),
    "musicgen, small": of("musicgen", "MusicgenForConditionalGeneration", audio_encoder={"model_type": "encodec"},
                          text_encoder={"model_type": "t5", "d_model": 768, "num_layers": 2, "num_heads": 12},
                          decoder={"model_type": "musicgen_decoder", "num_hidden_layers": 2}),
    "dac_44khz": of("dac", "DacModel"),
    "mimi": of("mimi", "MimiModel"),
    "mms-tts": of("vits", "VitsModel"),
    "vctk": of("vits", "VitsModel", num_speakers=109, speaker_embedding_size=256),
    "speecht5_tts": of("speecht5", "SpeechT5ForTextToSpeech"),
    "timesfm-2.0": of("timesfm", "TimesFmModelForPrediction"),
    "decision transformer": of("decision_transformer", "DecisionTransformerModel"),
}  # fmt: skip
SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
         "num_hidden_layers": 2, "vocab_size": 1000, "head_dim": 64}  # fmt: skip
QWEN3_EYE = {"deepstack_visual_indexes": [8, 16, 24], "depth": 27, "hidden_size": 1152, "intermediate_size": 4304,
             "num_heads": 16, "out_hidden_size": 256, "num_position_embeddings": 2304, "patch_size": 16}  # fmt: skip
MULTIMODAL = {
    "llava-1.5": of("llava", "LlavaForConditionalGeneration", text_config={"model_type": "llama", **SMALL},
                    vision_config=CLIP_L_336, tie_word_embeddings=False),
    "llava-v1.6": of("llava_next", "LlavaNextForConditionalGeneration", text_config={"model_type": "mistral", **SMALL},
                     vision_config=CLIP_L_336, tie_word_embeddings=False),
    "pixtral-12b": of("llava", "LlavaForConditionalGeneration", text_config={"model_type": "mistral", **SMALL},
                      vision_config={"model_type": "pixtral", "patch_size": 16}, tie_word_embeddings=False),
    "mistral-small-3.1": of("mistral3", "Mistral3ForConditionalGeneration", spatial_merge_size=2,
                            text_config={"model_type": "mistral", **SMALL}, tie_word_embeddings=False,
                            vision_config={"model_type": "pixtral", "patch_size": 14}),
    "qwen2-vl": of("qwen2_vl", "Qwen2VLForConditionalGeneration", **{**SMALL, "tie_word_embeddings": False},
                   vision_config={"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3,
                                  "hidden_size": 256, "patch_size": 14, "temporal_patch_size": 2}),
    "qwen3-vl": of("qwen3_vl", "Qwen3VLForConditionalGeneration", vision_config=QWEN3_EYE, tie_word_embeddings=False,
                   text_config={"model_type": "qwen3_vl_text", **SMALL}),
    "gemma-3-4b": of("gemma3", "Gemma3ForConditionalGeneration", vision_config={**SIGLIP_400M, "image_size": 896},
                     text_config={"model_type": "gemma3_text", **SMALL}),
    "paligemma-3b": of("paligemma", "PaliGemmaForConditionalGeneration", projection_dim=256, vision_config=SIGLIP_400M,
                       text_config={"model_type": "gemma", **SMALL}),
    "idefics2": of("idefics2", "Idefics2ForConditionalGeneration", text_config={"model_type": "mistral", **SMALL},
                   perceiver_config={"model_type": "idefics2_perceiver", "hidden_size": 256}, tie_word_embeddings=False,
                   vision_config={"hidden_size": 1152, "image_size": 980, "intermediate_size": 4304, "patch_size": 14,
                                  "model_type": "idefics2", "num_attention_heads": 16, "num_hidden_layers": 2}),
    "smolvlm": of("smolvlm", "SmolVLMForConditionalGeneration", scale_factor=4, tie_word_embeddings=False,
                  text_config={"model_type": "llama", **SMALL},
                  vision_config={"hidden_size": 768, "image_size": 512, "model_type": "smolvlm_vision",
                                 "num_attention_heads": 12, "patch_size": 16}),
    "internvl3": of("internvl", "InternVLForConditionalGeneration", text_config={"model_type": "qwen2", **SMALL},
                    vision_config={"model_type": "internvl_vision", "attention_bias": True}, tie_word_embeddings=False),
    "llama-4": of("llama4", "Llama4ForConditionalGeneration",
                  text_config={"model_type": "llama4_text", **SMALL, "num_local_experts": 4, "pad_token_id": 0,
                               "intermediate_size_mlp": 512},
                  vision_config={"hidden_size": 1408, "intermediate_size": 5632, "vision_output_dim": 4096,
                                 "num_hidden_layers": 2, "image_size": 336, "model_type": "llama4_vision_model"}),
    "llama-3.2-vision": of("mllama", "MllamaForConditionalGeneration",
                           text_config={"model_type": "mllama_text_model", "cross_attention_layers": [1], **SMALL,
                                        "pad_token_id": 0},
                           vision_config={"image_size": 560, "model_type": "mllama_vision_model"}),
    "qwen2-audio": of("qwen2_audio", "Qwen2AudioForConditionalGeneration", tie_word_embeddings=False,
                      text_config={"model_type": "qwen2", **SMALL}, audio_config={"model_type": "qwen2_audio_encoder"}),
    "voxtral": of("voxtral", "VoxtralForConditionalGeneration", text_config={"model_type": "llama", **SMALL},
                  audio_config={"model_type": "voxtral_encoder"}),
    "florence-2-base": of("florence2", "Florence2ForConditionalGeneration", vision_config={"projection_dim": 768},
                          text_config={"model_type": "bart", "d_model": 768, "vocab_size": 51289, "encoder_layers": 2}),
    "blip2, small": of("blip-2", "Blip2ForConditionalGeneration", qformer_config={},
                       vision_config={"num_hidden_layers": 2},
                       text_config={"model_type": "opt", "hidden_size": 256, "ffn_dim": 512, "num_attention_heads": 4,
                                    "num_hidden_layers": 2, "word_embed_proj_dim": 256, "vocab_size": 50304}),
}  # fmt: skip
WITH_CROSS = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
KANDINSKY = {
    "addition_embed_type": "image", "encoder_hid_dim": 1280, "encoder_hid_dim_type": "image_proj", "out_channels": 8,
    "block_out_channels": [384, 768, 1152, 1536], "layers_per_block": 3, "cross_attention_dim": 768,
    "resnet_time_scale_shift": "scale_shift", "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "attention_head_dim": 64, "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
    "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
}  # fmt: skip
DDPM = {
    "block_out_channels": [128, 128, 256, 256, 512, 512], "in_channels": 3, "out_channels": 3,
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
}  # fmt: skip
DIFFUSION = {
    "stable-diffusion-2-inpainting": diffuser("UNet2DConditionModel", in_channels=9, cross_attention_dim=1024,
                                              attention_head_dim=[5, 10, 20, 20], use_linear_projection=True),
    "kandinsky-2-2-decoder": diffuser("UNet2DConditionModel", **KANDINSKY),
    "lcm": diffuser("UNet2DConditionModel", cross_attention_dim=768, time_cond_proj_dim=256),
    "controlnet, sd 1.5": diffuser("ControlNetModel", cross_attention_dim=768),
    "ddpm-celebahq-256": diffuser("UNet2DModel", **DDPM),
    "taesd": diffuser("AutoencoderTiny"),
    "sd3's autoencoder": diffuser("AutoencoderKL", latent_channels=16, use_quant_conv=False, use_post_quant_conv=False,
                                  block_out_channels=[128, 256], layers_per_block=2,
                                  down_block_types=["DownEncoderBlock2D"] * 2,
                                  up_block_types=["UpDecoderBlock2D"] * 2),
    "vq": diffuser("VQModel", block_out_channels=[128, 256], down_block_types=["DownEncoderBlock2D"] * 2,
                   up_block_types=["UpDecoderBlock2D"] * 2, num_vq_embeddings=8192, vq_embed_dim=4),
    "stable-diffusion-3.5-medium": diffuser("SD3Transformer2DModel", num_layers=24, num_attention_heads=24,
                                            caption_projection_dim=1536, qk_norm="rms_norm",
                                            dual_attention_layers=list(range(13)), pos_embed_max_size=384),
    "pixart-alpha": diffuser("PixArtTransformer2DModel", caption_channels=4096),
    "pixart-sigma": diffuser("PixArtTransformer2DModel", caption_channels=4096, use_additional_conditions=False),
    "dit-xl-2": diffuser("DiTTransformer2DModel", out_channels=8),
    "sana": diffuser("SanaTransformer2DModel", qk_norm="rms_norm_across_heads"),
    "lumina2": diffuser("Lumina2Transformer2DModel", cap_feat_dim=2304),
    "auraflow": diffuser("AuraFlowTransformer2DModel"),
    "kandinsky-2-2-prior": diffuser("PriorTransformer", embedding_dim=1280),
    "cogvideox-2b": diffuser("CogVideoXTransformer3DModel"),
    "cogvideox-1.5": diffuser("CogVideoXTransformer3DModel", patch_size_t=2, patch_bias=False,
                              use_rotary_positional_embeddings=True),
    "cogvideox-1.5, from pictures": diffuser("CogVideoXTransformer3DModel", patch_size_t=2, ofs_embed_dim=512),
    "wan 2.1 1.3B": diffuser("WanTransformer3DModel", num_attention_heads=12, num_layers=30, ffn_dim=8960),
    "wan 2.1 i2v": diffuser("WanTransformer3DModel", image_dim=1280, added_kv_proj_dim=5120, in_channels=36),
    "ltx-video": diffuser("LTXVideoTransformer3DModel"),
    "mochi": diffuser("MochiTransformer3DModel"),
    "qwen-image": diffuser("QwenImageTransformer2DModel"),
    "sana's autoencoder": diffuser(
        "AutoencoderDC", encoder_block_types=["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
        decoder_block_types=["ResBlock"] * 3 + ["EfficientViTBlock"] * 3, encoder_layers_per_block=[2, 2, 2, 3, 3, 3],
        downsample_block_type="Conv", upsample_block_type="interpolate"),
    "dc-ae with shuffled pixels": diffuser("AutoencoderDC"),
    "wan's autoencoder": diffuser("AutoencoderKLWan"),
    "qwen-image's autoencoder": diffuser("AutoencoderKLQwenImage"),
    "cogvideox's autoencoder": diffuser(
        "AutoencoderKLCogVideoX", block_out_channels=[128, 256, 256, 512],
        down_block_types=["CogVideoXDownBlock3D"] * 4, up_block_types=["CogVideoXUpBlock3D"] * 4),
    "flux2's autoencoder": diffuser(
        "AutoencoderKLFlux2", block_out_channels=[128, 256, 512, 512], down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4),
    "flux2": diffuser("Flux2Transformer2DModel"),
    "z-image": diffuser("ZImageTransformer2DModel"),
    "hunyuan-video": diffuser("HunyuanVideoTransformer3DModel", guidance_embeds=True),
    "flux-schnell": diffuser("FluxTransformer2DModel", num_layers=2, num_single_layers=3),
}  # fmt: skip
ALL = {**ENCODERS, **VISION, **SOUNDS, **MULTIMODAL, **DIFFUSION}


@pytest.mark.parametrize("name", ALL)
def test_the_plan_counts_what_the_network_has(name: str) -> None:
    assert sum(counted(ALL[name]).values()) == built(ALL[name])


def test_a_config_of_defaults_alone_is_no_network() -> None:
    assert plan(of("bert", "BertModel", pad_token_id=7, id2label=SEVEN)) is None
    assert plan(of("bert", "BertModel", num_hidden_layers=12)) == plan(of("bert", "BertModel", hidden_size=768))


SD_UNET = diffuser("UNet2DConditionModel", cross_attention_dim=768, attention_head_dim=8)
SDXL_UNET = diffuser(
    "UNet2DConditionModel", addition_embed_type="text_time", addition_time_embed_dim=256, cross_attention_dim=2048,
    attention_head_dim=[5, 10, 20], block_out_channels=[320, 640, 1280], transformer_layers_per_block=[1, 2, 10],
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], use_linear_projection=True,
    projection_class_embeddings_input_dim=2816,
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
)  # fmt: skip
SD_VAE = diffuser(
    "AutoencoderKL", block_out_channels=[128, 256, 512, 512], down_block_types=["DownEncoderBlock2D"] * 4,
    up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2,
)  # fmt: skip
QWEN_7B = of(
    "qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", hidden_size=3584, intermediate_size=18944, vocab_size=152064,
    num_attention_heads=28, num_hidden_layers=28, num_key_value_heads=4, tie_word_embeddings=False,
    vision_config={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "in_chans": 3,
                   "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
)  # fmt: skip
GEMMA_27B = of(
    "gemma3", "Gemma3ForConditionalGeneration", vision_config={**SIGLIP_400M, "image_size": 896},
    text_config={"head_dim": 128, "hidden_size": 5376, "intermediate_size": 21504, "model_type": "gemma3_text",
                 "num_attention_heads": 32, "num_hidden_layers": 62, "num_key_value_heads": 16},
)  # fmt: skip
OPENVLA = of(
    "openvla", "OpenVLAForActionPrediction", text_config={"model_type": "llama", "vocab_size": 32064},
    timm_model_ids=["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
)  # fmt: skip
NOMIC = of(
    "nomic_bert", "NomicBertModel", n_embd=768, n_head=12, n_inner=3072, n_layer=12, n_positions=8192,
    vocab_size=30528, type_vocab_size=2, activation_function="swiglu", qkv_proj_bias=False, mlp_fc1_bias=False,
    mlp_fc2_bias=False, auto_map={"AutoModel": "modeling_hf_nomic_bert.NomicBertModel"},
)  # fmt: skip
GTE = of(
    "new", "NewModel", hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, vocab_size=30528,
    type_vocab_size=2, position_embedding_type="rope", auto_map={"AutoModel": "modeling.NewModel"},
)  # fmt: skip
FLAN_XL = of(
    "t5", "T5ForConditionalGeneration", d_model=2048, d_ff=5120, num_heads=32, num_layers=24, d_kv=64,
    feed_forward_proj="gated-gelu", tie_word_embeddings=False,
)  # fmt: skip
VIT_B_32 = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
    }
}
PHI_VISION = of(
    "phi3_v", "Phi3VForCausalLM", hidden_size=3072, intermediate_size=8192, num_attention_heads=32, vocab_size=32064,
    num_hidden_layers=32, num_key_value_heads=32, auto_map={"AutoModelForCausalLM": "modeling.Phi3VForCausalLM"},
    img_processor={"image_dim_out": 1024, "model_name": "openai/clip-vit-large-patch14-336"},
)  # fmt: skip
INTERNVL2 = of(
    "internvl_chat", "InternVLChatModel", downsample_ratio=0.5, auto_map={"AutoModel": "modeling.InternVLChatModel"},
    llm_config={"model_type": "internlm2", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
                "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 92553, "bias": False},
    vision_config={"model_type": "intern_vit_6b", "hidden_size": 1024, "image_size": 448, "intermediate_size": 4096,
                   "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 24, "patch_size": 14,
                   "qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm"},
)  # fmt: skip
# Totals of the published files: the sum of their tensors, or half the bytes that their index tells.
PUBLISHED = [
    ("Stable Diffusion 1.5", SD_UNET, 859_520_964),
    ("its autoencoder", SD_VAE, 83_653_863),
    ("SDXL", SDXL_UNET, 2_567_463_684),
    ("FLUX.1 dev", diffuser("FluxTransformer2DModel", guidance_embeds=True, num_layers=19), 11_901_408_320),
    ("Qwen2.5-VL 7B", QWEN_7B, 8_292_166_656),
    ("Gemma 3 27B", GEMMA_27B, 27_432_406_640),
    ("OpenVLA 7B", OPENVLA, 7_541_237_184),
    ("nomic-embed-text-v1.5", NOMIC, 136_731_648),
    ("gte-large-en-v1.5", GTE, 434_139_136),
    ("FLAN-T5 XL, whose head is its own", FLAN_XL, 2_849_757_184),
    ("OpenAI's ViT-B/32 in OpenCLIP's layout", VIT_B_32, 151_277_313),
    ("Phi-3.5 Vision", PHI_VISION, 4_146_621_440),
    ("InternVL2 8B", INTERNVL2, 8_075_365_376),
    ("DETR with timm's ResNet-50", of("detr", "DetrForObjectDetection", backbone="resnet50", d_model=256,
                                       id2label={str(i): "" for i in range(91)}), 41_524_768),
]  # fmt: skip


@pytest.mark.parametrize(("name", "config", "total"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_published_totals_are_met(name: str, config: Config, total: int) -> None:
    found = plan(config)
    assert found is not None and sum(found.values()) == total


def test_components_are_named_and_none_is_counted_twice() -> None:
    found = plan(of("clip", "CLIPModel", **CLIP_H))
    text = plan(of("clip_text_model", "CLIPTextModel", **CLIP_H["text_config"]))
    vision = plan(of("clip_vision_model", "CLIPVisionModel", **CLIP_H["vision_config"]))
    assert found and text and vision
    assert found["text"] == sum(text.values()) and found["vision"] == sum(vision.values())
    assert found["projection"] == 1024 * (1024 + 1280) + 1


@pytest.mark.parametrize(
    "config",
    [
        {},
        of("a network that nobody knows"),
        of("bert", "JinaBertForMaskedLM"),
        of("bert", "BertModel", auto_map={"AutoModel": "modeling.BertModel"}),
        of("bert", "BertModel", pruned_heads={"0": [1]}),
        of("bert", "BertModel", position_embedding_type="relative_key"),
        of("bert", "BertModel", hidden_size="768"),
        of("bert", "BertModel", hidden_size=-1),
        of("bert", "BertModel", hidden_size=2**60),
        of("llava", "LlavaForConditionalGeneration", vision_config=CLIP_L_336),
        of("llava", "LlavaForConditionalGeneration", text_config={"model_type": "llama", **SMALL},
           vision_config={"model_type": "a tower of its own"}),
        of("mt5", "MT5ForConditionalGeneration"),
        of("deberta-v2", "DebertaV2ForMultipleChoice"),
        {"model_cfg": {"embed_dim": 512, "vision_cfg": {"timm_model_name": "x"}, "text_cfg": {"hf_model_name": "y"}}},
        diffuser("UNet2DConditionModel", down_block_types=["A block of its own"] * 4),
        diffuser("SD3Transformer2DModel", caption_projection_dim=7),
    ],
)  # fmt: skip
def test_where_the_config_does_not_tell_there_is_no_number(config: Config) -> None:
    assert plan(config) is None


def test_the_real_configs_kept_beside_the_project_are_counted(shared: Path) -> None:
    totals = {"sd-v1-5/unet": 859_520_964, "sdxl-base-1.0/unet": 2_567_463_684, "sam-vit-huge": 641_090_864,
              "whisper-base": 72_593_920, "qwen2.5-vl-7b": 8_292_166_656, "openvla-7b": 7_541_237_184}  # fmt: skip
    for name, total in totals.items():
        found = plan(json.loads((shared / "data" / "configs" / name / "config.json").read_text()))
        assert found is not None and sum(found.values()) == total, name


class Folder:
    """As much of a subject as a pipeline asks for."""

    def __init__(self, files: dict[str, Config]) -> None:
        self.files = files

    def json(self, name: str) -> Config:
        return self.files.get(name, {})


def test_a_pipeline_is_the_sum_of_its_networks() -> None:
    index = {
        "_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "safety": [None, None],
        "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "PNDMScheduler"], "flag": True,
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }  # fmt: skip
    files = {"unet/config.json": SD_UNET, "vae/config.json": SD_VAE}
    parts = {"unet": SD_UNET, "vae": SD_VAE}
    assert plan({**index, "components": parts}) == {"unet": 859_520_964, "vae": 83_653_863}
    assert plan({**index, "components": {"unet": SD_UNET}}) is None
    assert plan(index, Folder(files)) == {"unet": 859_520_964, "vae": 83_653_863}  # type: ignore[arg-type]
    assert plan(index, Folder({"unet/config.json": SD_UNET})) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (of("clip"), 77),
        (of("siglip"), 64),
        (of("bert"), 512),
        (of("roberta", max_position_embeddings=514), 512),
        (of("whisper"), 448),
        (of("t5"), None),
        (of("vit"), None),
        (of("nomic_bert", n_positions=8192), 8192),
    ],
)
def test_contexts(config: Config, length: int | None) -> None:
    assert context_of(config) == length


NONSENSE = (None, -1, 0, 2**80, 1e308, float("nan"), "x", [], [2**70] * 600, [[]], {}, {"model_type": 7}, True)


def test_hostile_configs_are_answered_at_once() -> None:
    """Each key of each real config in turn says something that no network can be."""
    import time

    start = time.monotonic()
    for config in ALL.values():
        for key in config:
            if key in ("model_type", "_class_name"):
                continue
            for value in (
                None,
                -1,
                2**80,
                1e308,
                "x",
                [],
                [2**70] * 600,
                {},
                {"model_type": 7},
                [[]],
                float("nan"),
                True,
            ):
                found = plan({**config, key: value})
                assert found is None or all(type(n) is int and n > 0 for n in found.values()), (config, key, value)
                context_of({**config, key: value})
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("kind", sorted(TABLE))
def test_every_row_names_a_function_and_its_parts_have_defaults(kind: str) -> None:
    import importlib

    name, *parts = TABLE[kind].split()
    module, function = name.split(".")
    assert callable(getattr(importlib.import_module(f"brolly.identity.plans.{module}"), function))
    for part in parts:
        assert part.split(":")[1] in {*defaults(), "intern_vit_6b"}
