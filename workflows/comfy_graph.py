"""A film's settings as a workflow: the graph, in ComfyUI's API format, that makes the same film there.

Every file carries it under `prompt`, so that it can be dropped on ComfyUI. Node ids are those of the vendor's text-to-film workflow.
"""

from __future__ import annotations

from pipelines.parameters import FileSettings, MotionSettings, StillSettings, parse_loras

Graph = dict[str, dict]


def _node(class_type: str, title: str, **inputs: object) -> dict:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}


def still_graph(still: StillSettings, file: FileSettings) -> Graph:
    """From prompt to PNG; the picture is output 0 of node 8."""
    loras, (model, clip) = _loras(still.loras)
    sampling = {"seed": still.seed, "steps": still.steps, "cfg": still.guidance, "sampler_name": still.sampler, "scheduler": still.schedule}
    links = {"model": model, "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    vae = {"10": _node("VAELoader", "VAE of the still", vae_name=still.vae)} if still.vae else {}
    graph = {
        "3": _node("KSampler", "Sample the still", **sampling, denoise=1.0, **links),
        "4": _node("CheckpointLoaderSimple", "Model of the still", ckpt_name=still.checkpoint),
        "5": _node("EmptyLatentImage", "Size of the still", width=still.width, height=still.height, batch_size=1),
        "6": _node("CLIPTextEncode", "Prompt", text=still.prompt, clip=clip),
        "7": _node("CLIPTextEncode", "Negative prompt", text=still.negative_prompt, clip=clip),
        "8": _node("VAEDecode", "Still", samples=["3", 0], vae=["10", 0] if vae else ["4", 2]),
        "9": _node("SaveImage", "Save the still", filename_prefix=file.prefix, images=["8", 0]),
    }
    return graph | vae | loras


def _loras(text: str) -> tuple[Graph, tuple[list, list]]:
    """A chain of nodes from 20 on, one a LoRA, and where the model and its text encoder come out."""
    graph, model, clip = {}, ["4", 0], ["4", 1]
    for number, (name, strength) in enumerate(parse_loras(text), start=20):
        strengths = {"strength_model": strength, "strength_clip": strength}
        graph[str(number)] = _node("LoraLoader", f"LoRA {name}", lora_name=name, **strengths, model=model, clip=clip)
        model, clip = [str(number), 0], [str(number), 1]
    return graph, (model, clip)


def film_graph(still: StillSettings | str, motion: MotionSettings, file: FileSettings) -> Graph:
    """From prompt, or from the picture of this file name, to WEBP and MP4."""
    graph = {"8": _node("LoadImage", "Still", image=still)} if isinstance(still, str) else still_graph(still, file)
    guidance = "VideoLinearCFGGuidance" if motion.guidance_shape == "linear" else "VideoTriangleCFGGuidance"
    size = {"width": motion.width, "height": motion.height, "video_frames": motion.frames}
    meaning = {"motion_bucket_id": motion.motion_bucket_id, "fps": motion.fps, "augmentation_level": motion.augmentation_level}
    sampling = {"seed": motion.seed, "steps": motion.steps, "cfg": motion.guidance, "sampler_name": motion.sampler}
    links = {"model": ["17", 0], "positive": ["16", 0], "negative": ["16", 1], "latent_image": ["16", 2]}
    webp = {"fps": file.frame_rate, "lossless": file.webp_lossless, "quality": file.webp_quality, "method": file.webp_method}
    mp4 = {"frame_rate": file.frame_rate, "loop_count": file.loop_count, "format": "video/h264-mp4", "pix_fmt": file.pix_fmt}
    mp4 |= {"crf": file.crf, "save_metadata": file.metadata, "pingpong": file.pingpong, "save_output": True}
    return graph | {
        "13": _node("KSampler", "Sample the motion", **sampling, scheduler=motion.schedule, denoise=1.0, **links),
        "14": _node("VAEDecode", "Frames", samples=["13", 0], vae=["18", 2]),
        "15": _node("SaveAnimatedWEBP", "Save the WEBP", filename_prefix=file.prefix, **webp, images=["14", 0]),
        "16": _node(
            "SVD_img2vid_Conditioning", "Still to motion", **size, **meaning, clip_vision=["18", 1], init_image=["8", 0], vae=["18", 2]
        ),
        "17": _node(guidance, "Guidance over the frames", min_cfg=motion.min_guidance, model=["18", 0]),
        "18": _node("ImageOnlyCheckpointLoader", "Model of the motion", ckpt_name=motion.checkpoint),
        "19": _node("VHS_VideoCombine", "Save the MP4", filename_prefix=file.prefix, **mp4, images=["14", 0]),
    }
