"""Conversion between diffusers' ``config.json`` of a ``UNet2DModel`` and the fields of our U-Net."""

from typing import Any

from ddpm_jax.interop import configs
from ddpm_jax.interop.configs import COUNT, COUNT_OR_NONE, NAMES, Kind

CONFIG = "config.json"
ENTRIES: dict[str, tuple[Any, Kind]] = {
    "sample_size": (None, configs.SIZE),
    "in_channels": (3, COUNT),
    "out_channels": (3, COUNT),
    "freq_shift": (0, configs.BIT),
    "flip_sin_to_cos": (True, configs.BOOLEAN),
    "down_block_types": (("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"), NAMES),
    "up_block_types": (("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"), NAMES),
    "block_out_channels": ((224, 448, 672, 896), configs.COUNTS),
    "layers_per_block": (2, COUNT),
    "downsample_padding": (1, configs.BIT),
    "dropout": (0.0, configs.PROBABILITY),
    "attention_head_dim": (8, COUNT_OR_NONE),
    "norm_num_groups": (32, COUNT),
    "attn_norm_num_groups": (None, COUNT_OR_NONE),
    "norm_eps": (1e-5, configs.POSITIVE),
    "num_class_embeds": (None, COUNT_OR_NONE),
    "resnet_time_scale_shift": ("default", configs.NAME),
}
"""The entries that are converted: diffusers' default, and what the value must be."""

FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "add_attention": (True,),
    "class_embed_type": (None,),
}
"""Options for which only these values are supported."""
SCALE_SHIFT = {"default": False, "scale_shift": True}
"""diffusers' names of the ways in which the time enters a block, and our field `scale_shift`."""

AVERAGE = frozenset(
    ("decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup")
)
"""Entries that diffusers' EMAModel adds to the config: their presence means that the weights are an average."""
IGNORED = AVERAGE | {"num_train_timesteps", "time_embedding_dim"}
"""Entries without effect on the network; time_embedding_dim is checked separately."""
DOWN = {"DownBlock2D": False, "AttnDownBlock2D": True}
"""Block types on the way down, and whether they have attention."""
UP = {"UpBlock2D": False, "AttnUpBlock2D": True}
"""Block types on the way up, and whether they have attention."""


def to_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of our U-Net for this config, and ``image_shape`` (height, width, channels), as numbers and tuples.

    Raises ValueError naming the first entry that is not supported.
    """
    configs.check_known(CONFIG, config, {*ENTRIES, *FIXED, *IGNORED})
    configs.check_fixed(CONFIG, config, FIXED)
    values = configs.read(CONFIG, config, ENTRIES)
    configs.check_fixed(CONFIG, values, {"resnet_time_scale_shift": tuple(SCALE_SHIFT)})
    _check_channels(values, config.get("time_embedding_dim"))
    _check_middle(values)
    channels, size = values["block_out_channels"], values["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    attention = tuple(height // 2**level for level, attends in enumerate(_has_attention(values)) if attends)
    return {
        "image_shape": (height, width, values["in_channels"]),
        "width": channels[0],
        "multipliers": tuple(features / channels[0] for features in channels),
        "num_blocks": values["layers_per_block"],
        "attention": attention,
        "head_dim": values["attention_head_dim"],
        "dropout": float(values["dropout"]),
        "out_channels": values["out_channels"],
        "num_classes": values["num_class_embeds"],
        "scale_shift": SCALE_SHIFT[values["resnet_time_scale_shift"]],
        "groups": values["norm_num_groups"],
        "norm_eps": float(values["norm_eps"]),
        "down_padding": int(values["downsample_padding"]),
        "cos_first": values["flip_sin_to_cos"],
        "frequency_shift": int(values["freq_shift"]),
    }


def _check_channels(values: dict[str, Any], embedding_dim: int | None) -> None:
    """Raises ValueError for numbers of channels that our U-Net does not have."""
    inputs, outputs, width = values["in_channels"], values["out_channels"], values["block_out_channels"][0]
    if outputs not in (inputs, 2 * inputs):
        raise ValueError(
            f"{CONFIG}: out_channels {outputs} must be in_channels {inputs}, or twice that for a learned variance: "
            "networks with a second input image are not supported"
        )
    if embedding_dim not in (None, 4 * width):
        raise ValueError(f"{CONFIG}: time_embedding_dim {embedding_dim} is not supported: it must be {4 * width}")


def _check_middle(values: dict[str, Any]) -> None:
    """Raises ValueError unless the attention in the middle is normalized as the others are.

    diffusers leaves out this normalization where the time scales and shifts, unless attn_norm_num_groups is given.
    """
    given, groups = values["attn_norm_num_groups"], values["norm_num_groups"]
    if given != groups and (given is not None or SCALE_SHIFT[values["resnet_time_scale_shift"]]):
        raise ValueError(
            f"{CONFIG}: attn_norm_num_groups {given} is not supported with resnet_time_scale_shift "
            f"{values['resnet_time_scale_shift']}: it must be norm_num_groups, {groups}"
        )


def _has_attention(values: dict[str, Any]) -> list[bool]:
    """Whether each level has attention. Raises ValueError unless it is the same on the way down and up."""
    for block in (*values["down_block_types"], *values["up_block_types"]):
        if block not in DOWN | UP:
            raise ValueError(f"{CONFIG}: blocks of type {block} are not supported: choose {', '.join(DOWN | UP)}")
    down = [DOWN.get(block) for block in values["down_block_types"]]
    up = [UP.get(block) for block in reversed(values["up_block_types"])]
    if down != up or None in down or len(down) != len(values["block_out_channels"]):
        raise ValueError(f"{CONFIG}: down_block_types, up_block_types and block_out_channels do not match")
    return [bool(attends) for attends in down]


def to_config(fields: dict[str, Any], image_shape: tuple[int, ...]) -> dict[str, Any]:
    """The config of the ``UNet2DModel`` that computes the same as our U-Net with these fields.

    Raises ValueError where diffusers has no such model.
    """
    height, width, channels = image_shape
    features = [round(fields["width"] * multiplier) for multiplier in fields["multipliers"]]
    _check_fields(fields, features[0], channels)
    attends = [height // 2**level in fields["attention"] for level in range(len(features))]
    return {
        "_class_name": "UNet2DModel",
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": fields["out_channels"] or channels,
        "freq_shift": fields["frequency_shift"],
        "flip_sin_to_cos": fields["cos_first"],
        "down_block_types": [_block(DOWN, level) for level in attends],
        "up_block_types": [_block(UP, level) for level in reversed(attends)],
        "block_out_channels": features,
        "layers_per_block": fields["num_blocks"],
        "downsample_padding": fields["down_padding"],
        "dropout": fields["dropout"],
        "attention_head_dim": fields["head_dim"],
        "norm_num_groups": fields["groups"],
        "norm_eps": fields["norm_eps"],
        # one row more than there are classes, for "no label", unless there is none
        "num_class_embeds": None if fields["num_classes"] is None else fields["num_classes"] + fields["null_label"],
        "resnet_time_scale_shift": "scale_shift" if fields["scale_shift"] else "default",
        "attn_norm_num_groups": fields["groups"] if fields["scale_shift"] else None,
        **{name: values[0] for name, values in FIXED.items()},
    }


def _check_fields(fields: dict[str, Any], first: int, channels: int) -> None:
    """Raises ValueError for a U-Net that diffusers does not have; `first` is the number of channels of level 0."""
    if first != fields["width"]:
        raise ValueError(f"multipliers {fields['multipliers']}: the first multiplier of a UNet2DModel must be 1")
    if fields["out_channels"] not in (None, channels, 2 * channels):
        raise ValueError(f"out_channels {fields['out_channels']}: a UNet2DModel has {channels} or {2 * channels}")
    if fields["residual_resampling"]:
        raise ValueError("residual_resampling: only a UNet2DModel that halves the resolution by convolutions is made")
    if fields["time_scale"] != 1:
        raise ValueError(f"time_scale {fields['time_scale']}: a UNet2DModel has the timestep as it is")
    if fields["head_dim"] is None and fields["heads"] != 1:
        raise ValueError(f"heads {fields['heads']}: a UNet2DModel has one head, or heads of a given head_dim")


def _block(blocks: dict[str, bool], attends: bool) -> str:
    """The block type with or without attention."""
    return next(name for name, has_attention in blocks.items() if has_attention == attends)
