"""``config.json`` of diffusers' ``UNet2DModel``, and the fields of our U-Net that mean the same."""

from typing import Any

from ddpm_jax.interop import configs
from ddpm_jax.interop.configs import COUNT, COUNT_OR_NONE, NAMES, Kind

ENTRIES: dict[str, tuple[Any, Kind]] = {
    "sample_size": (None, configs.SIZE),
    "in_channels": (3, COUNT),
    "out_channels": (3, COUNT),
    "freq_shift": (0, configs.BIT),
    "flip_sin_to_cos": (True, configs.TRUTH),
    "down_block_types": (("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"), NAMES),
    "up_block_types": (("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"), NAMES),
    "block_out_channels": ((224, 448, 672, 896), configs.COUNTS),
    "layers_per_block": (2, COUNT),
    "downsample_padding": (1, configs.BIT),
    "dropout": (0.0, configs.SHARE),
    "attention_head_dim": (8, COUNT_OR_NONE),
    "norm_num_groups": (32, COUNT),
    "norm_eps": (1e-5, configs.POSITIVE),
    "num_class_embeds": (None, COUNT_OR_NONE),
}
"""What the model takes where its config is silent, and what each entry should be."""

FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "attn_norm_num_groups": (None,),
    "resnet_time_scale_shift": ("default",),
    "add_attention": (True,),
    "class_embed_type": (None,),
}
"""What our U-Net has no other way of."""

AVERAGE = frozenset(
    ("decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup")
)
"""What diffusers' EMAModel adds to the config of an average that it saves."""
IGNORED = AVERAGE | {"num_train_timesteps", "time_embedding_dim"}
DOWN = {"DownBlock2D": False, "AttnDownBlock2D": True}
"""The blocks, and whether they have attention."""
UP = {"UpBlock2D": False, "AttnUpBlock2D": True}


def to_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of our U-Net, and ``image_shape`` (height, width, channels), as plain numbers and tuples.

    Raises ValueError naming the first entry that our U-Net cannot follow.
    """
    configs.check_known("config.json", config, {*ENTRIES, *FIXED, *IGNORED})
    configs.check_fixed("config.json", config, FIXED)
    told = configs.read("config.json", config, ENTRIES)
    if told["out_channels"] != told["in_channels"]:
        raise ValueError(
            f"config.json: out_channels {told['out_channels']} are not in_channels {told['in_channels']}: a network "
            "that is told more than the image, or tells its variance, is not supported"
        )
    channels = told["block_out_channels"]
    if config.get("time_embedding_dim") not in (None, 4 * channels[0]):
        raise ValueError(f"config.json: time_embedding_dim {config['time_embedding_dim']} is not 4 * {channels[0]}")
    size = told["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return {
        "image_shape": (height, width, told["in_channels"]),
        "width": channels[0],
        "multipliers": tuple(each / channels[0] for each in channels),
        "num_blocks": told["layers_per_block"],
        "attention": tuple(height // 2**level for level, attends in enumerate(_attends(told)) if attends),
        "head_dim": told["attention_head_dim"],
        "dropout": float(told["dropout"]),
        "out_channels": told["out_channels"],
        "num_classes": told["num_class_embeds"],
        "groups": told["norm_num_groups"],
        "norm_eps": float(told["norm_eps"]),
        "down_padding": int(told["downsample_padding"]),
        "cos_first": told["flip_sin_to_cos"],
        "frequency_shift": int(told["freq_shift"]),
    }


def _attends(told: dict[str, Any]) -> list[bool]:
    """Of each level; it has to be the same on the way up."""
    for kind in (*told["down_block_types"], *told["up_block_types"]):
        if kind not in DOWN | UP:
            raise ValueError(f"config.json: blocks of type {kind} are not supported; {', '.join(DOWN | UP)} are")
    down = [DOWN[kind] for kind in told["down_block_types"]]
    up = [UP[kind] for kind in reversed(told["up_block_types"])]
    if down != up or len(down) != len(told["block_out_channels"]):
        raise ValueError("config.json: down_block_types, up_block_types and block_out_channels do not match")
    return down


def to_config(fields: dict[str, Any], image_shape: tuple[int, ...]) -> dict[str, Any]:
    """The config of the model that computes what our U-Net with these fields does.

    Raises ValueError where diffusers has no such model.
    """
    height, width, channels = image_shape
    features = [round(fields["width"] * multiplier) for multiplier in fields["multipliers"]]
    if features[0] != fields["width"]:
        raise ValueError(f"multipliers {fields['multipliers']}: a UNet2DModel begins with a multiplier of 1")
    if fields["out_channels"] not in (None, channels):
        raise ValueError(f"out_channels {fields['out_channels']}: a network that tells its variance is not supported")
    if fields["head_dim"] is None and fields["heads"] != 1:
        raise ValueError(f"heads {fields['heads']}: a UNet2DModel has one head, or heads of a head_dim")
    attends = [height // 2**level in fields["attention"] for level in range(len(features))]
    down = [_name(DOWN, each) for each in attends]
    up = [_name(UP, each) for each in reversed(attends)]
    return {
        "_class_name": "UNet2DModel",
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": fields["out_channels"] or channels,
        "freq_shift": fields["frequency_shift"],
        "flip_sin_to_cos": fields["cos_first"],
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": features,
        "layers_per_block": fields["num_blocks"],
        "downsample_padding": fields["down_padding"],
        "dropout": fields["dropout"],
        "attention_head_dim": fields["head_dim"],
        "norm_num_groups": fields["groups"],
        "norm_eps": fields["norm_eps"],
        # one row more than classes: the label that means "no label"
        "num_class_embeds": None if fields["num_classes"] is None else fields["num_classes"] + 1,
        **{name: values[0] for name, values in FIXED.items()},
    }


def _name(kinds: dict[str, bool], attends: bool) -> str:
    return next(name for name, has in kinds.items() if has == attends)
