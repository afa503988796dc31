"""The settings of the diffusion U-Nets: the keys and defaults of diffusers, checked before any weight is made."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from genzoo.frozen import Frozen, Seq, Size

#: How many blocks of a kind a level may hold.
Count = Annotated[int, Field(ge=1, le=64)]

Levels = Field(min_length=1, max_length=16)


class TrunkConfig(Frozen):
    """The settings that both U-Nets share, under diffusers' names."""

    sample_size: Size | Annotated[Seq[Size], Field(min_length=2, max_length=2)] | None = None
    center_input_sample: bool = False
    time_embedding_dim: Size | None = None
    freq_shift: Annotated[int, Field(ge=0, le=65536)] = 0
    flip_sin_to_cos: bool = True
    mid_block_scale_factor: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    downsample_padding: Literal[0, 1] = 1
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    act_fn: Literal["silu", "swish", "mish", "gelu", "relu"] = "silu"
    norm_num_groups: Size = 32
    norm_eps: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    class_embed_type: Literal["timestep", "identity"] | None = None
    num_class_embeds: Size | None = None

    in_channels: Size
    out_channels: Size
    block_out_channels: Annotated[Seq[Size], Levels]
    down_block_types: Annotated[Seq[str], Levels]
    up_block_types: Annotated[Seq[str], Levels]

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        """Refuse lists of different lengths, and channels that the groups do not divide."""
        named = {key: getattr(self, key) for key in ("down_block_types", "up_block_types", "block_out_channels")}
        if len({len(value) for value in named.values()}) > 1:
            lengths = ", ".join(f"{key} has {len(value)}" for key, value in named.items())
            raise ValueError(f"these keys must have one entry per level, so equal lengths: {lengths}")
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"block_out_channels {channels} is not divisible by norm_num_groups {self.norm_num_groups}"
                )
        return self

    @property
    def time_width(self) -> int:
        """The width of the vector that tells the blocks the time."""
        return self.time_embedding_dim or 4 * self.block_out_channels[0]

    def check_frequencies(self) -> None:
        """Refuse a sinusoidal embedding whose frequencies would divide by zero or grow."""
        if self.freq_shift >= self.block_out_channels[0] // 2:
            raise ValueError(
                f"freq_shift {self.freq_shift} must be less than half of the first of block_out_channels "
                f"({self.block_out_channels[0]})"
            )


class UNet2DConfig(TrunkConfig):
    """The settings of ``UNet2D``: the keys and defaults of diffusers' ``UNet2DModel``.

    ``block_out_channels`` gives the width of each level, from the top; every level but the last halves the image.
    ``attention_head_dim`` is the width of one attention head, null for a single head. ``attn_norm_num_groups`` is for
    the middle block's attention; null means ``norm_num_groups``, or no normalisation with ``scale_shift``.
    ``downsample_type`` and ``upsample_type`` matter to the blocks with attention only.
    """

    in_channels: Size = 3
    out_channels: Size = 3
    time_embedding_type: Literal["positional", "fourier", "learned"] = "positional"
    down_block_types: Annotated[Seq[Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]], Levels] = (
        "DownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
    )
    mid_block_type: Literal["UNetMidBlock2D"] | None = "UNetMidBlock2D"
    up_block_types: Annotated[Seq[Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]], Levels] = (
        "AttnUpBlock2D",
        "AttnUpBlock2D",
        "AttnUpBlock2D",
        "UpBlock2D",
    )
    block_out_channels: Annotated[Seq[Size], Levels] = (224, 448, 672, 896)
    layers_per_block: Count = 2
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    attention_head_dim: Size | None = 8
    attn_norm_num_groups: Size | None = None
    add_attention: bool = True
    num_train_timesteps: Size | None = None

    def heads(self, channels: int) -> int:
        """The number of attention heads in attention of that width."""
        return channels // (self.attention_head_dim or channels)

    @property
    def sinusoid_width(self) -> int:
        """The width of the embedding of time that the two linear layers read."""
        return self.block_out_channels[0]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        deepest = self.block_out_channels[-1]
        attended = {
            channels
            for channels, down, up in zip(
                self.block_out_channels, self.down_block_types, reversed(self.up_block_types), strict=True
            )
            if down.startswith("Attn") or up.startswith("Attn")
        }
        if self.mid_block_type is not None and self.add_attention:
            attended.add(deepest)
            if self.attn_norm_num_groups is not None and deepest % self.attn_norm_num_groups:
                raise ValueError(
                    f"the last of block_out_channels, {deepest}, is not divisible by attn_norm_num_groups "
                    f"{self.attn_norm_num_groups}"
                )
        for channels in sorted(attended):
            if self.attention_head_dim is not None and channels % self.attention_head_dim:
                raise ValueError(
                    f"block_out_channels {channels} has attention and is not divisible by attention_head_dim "
                    f"{self.attention_head_dim}"
                )
        if self.time_embedding_type == "positional":
            self.check_frequencies()
        if self.time_embedding_type == "learned" and self.num_train_timesteps is None:
            raise ValueError("time_embedding_type 'learned' needs num_train_timesteps, the number of vectors to learn")
        sizes = self.sample_size if isinstance(self.sample_size, tuple) else (self.sample_size or 0,)
        unit = 2 ** (len(self.block_out_channels) - 1)
        if any(size % unit for size in sizes):
            raise ValueError(
                f"sample_size {self.sample_size} is not a multiple of {unit}, which the {len(self.block_out_channels)} "
                f"levels of block_out_channels need"
            )
        return self


class GuidedUNetConfig(UNet2DConfig):
    """``UNet2DConfig`` with what OpenAI's guided-diffusion can set beyond the keys of diffusers.

    ``attention_heads`` is a number of heads for every width, in place of ``attention_head_dim``, which must then be
    null; ``time_channels`` is the width of the embedding of time where the first level's differs from it.
    """

    attention_heads: Size | None = None
    time_channels: Size | None = None

    def heads(self, channels: int) -> int:
        return self.attention_heads or super().heads(channels)

    @property
    def sinusoid_width(self) -> int:
        return self.time_channels or super().sinusoid_width

    @model_validator(mode="after")
    def _heads_agree(self) -> Self:
        if self.attention_heads is None:
            return self
        if self.attention_head_dim is not None:
            raise ValueError("attention_heads and attention_head_dim say the same: leave one of them null")
        wrong = [channels for channels in self.block_out_channels if channels % self.attention_heads]
        if wrong:
            raise ValueError(
                f"block_out_channels {wrong[0]} is not divisible by attention_heads {self.attention_heads}"
            )
        return self


class UNet2DConditionConfig(TrunkConfig):
    """The settings of ``UNet2DCondition``: the keys and defaults of diffusers' ``UNet2DConditionModel``.

    What Stable Diffusion 1.x and 2.x set is supported; every other key must keep its default. Three keys take one
    value for all levels or a list, from the top level down: ``layers_per_block``, ``cross_attention_dim`` and
    ``transformer_layers_per_block``. So does ``attention_head_dim``, which by an old slip of diffusers is the *number*
    of heads; ``num_attention_heads`` means the same and goes first where given. ``upcast_attention`` changes nothing:
    PyTorch's attention accumulates its softmax in float32 already.
    """

    in_channels: Size = 4
    out_channels: Size = 4
    time_embedding_type: Literal["positional"] = "positional"
    down_block_types: Annotated[Seq[Literal["CrossAttnDownBlock2D", "DownBlock2D"]], Levels] = (
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    )
    mid_block_type: Literal["UNetMidBlock2DCrossAttn", "UNetMidBlock2D"] | None = "UNetMidBlock2DCrossAttn"
    up_block_types: Annotated[Seq[Literal["CrossAttnUpBlock2D", "UpBlock2D"]], Levels] = (
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
    )
    block_out_channels: Annotated[Seq[Size], Levels] = (320, 640, 1280, 1280)
    layers_per_block: Count | Seq[Count] = 2
    cross_attention_dim: Size | Seq[Size] = 1280
    transformer_layers_per_block: Count | Seq[Count] = 1
    attention_head_dim: Size | Seq[Size] = 8
    num_attention_heads: Size | Seq[Size] | None = None
    use_linear_projection: bool = False
    upcast_attention: bool = False

    # Known to diffusers, not to this network: anything but the default is refused, for it would change the images.
    only_cross_attention: Literal[False] = False
    reverse_transformer_layers_per_block: None = None
    encoder_hid_dim: None = None
    encoder_hid_dim_type: None = None
    dual_cross_attention: Literal[False] = False
    addition_embed_type: None = None
    addition_time_embed_dim: None = None
    resnet_skip_time_act: Literal[False] = False
    resnet_out_scale_factor: Annotated[float, Field(ge=1.0, le=1.0)] = 1.0
    time_embedding_act_fn: None = None
    timestep_post_act: None = None
    time_cond_proj_dim: None = None
    conv_in_kernel: Literal[3] = 3
    conv_out_kernel: Literal[3] = 3
    projection_class_embeddings_input_dim: None = None
    attention_type: Literal["default"] = "default"
    class_embeddings_concat: Literal[False] = False
    mid_block_only_cross_attention: Literal[False] | None = None
    cross_attention_norm: None = None
    addition_embed_type_num_heads: Literal[64] = 64

    @property
    def heads(self) -> tuple[int, ...]:
        """The number of attention heads of each level."""
        return self._each("attention_head_dim" if self.num_attention_heads is None else "num_attention_heads")

    @property
    def layers(self) -> tuple[int, ...]:
        """The number of residual blocks of each level on the way down; the way up has one more."""
        return self._each("layers_per_block")

    @property
    def depths(self) -> tuple[int, ...]:
        """The number of transformer blocks in each attention of each level."""
        return self._each("transformer_layers_per_block")

    @property
    def attended(self) -> tuple[bool, ...]:
        """Whether each level reads the context, on the way down, on the way up or, the last, in the middle."""
        ways = list(zip(self.down_block_types, reversed(self.up_block_types), strict=True))
        reads = [any(block.startswith("CrossAttn") for block in way) for way in ways]
        return (*reads[:-1], reads[-1] or self.mid_block_type == "UNetMidBlock2DCrossAttn")

    @property
    def context_channels(self) -> int | None:
        """The width of ``encoder_hidden_states``; None where no level reads them."""
        return next((d for d, on in zip(self._each("cross_attention_dim"), self.attended, strict=True) if on), None)

    def _each(self, key: str) -> tuple[int, ...]:
        value: int | tuple[int, ...] = getattr(self, key)
        return value if isinstance(value, tuple) else (value,) * len(self.block_out_channels)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        depth = len(self.block_out_channels)
        for key in ("layers_per_block", "cross_attention_dim", "transformer_layers_per_block", "attention_head_dim"):
            if len(self._each(key)) != depth:
                raise ValueError(
                    f"{key} has {len(self._each(key))} entries and block_out_channels has {depth}: give one per level, "
                    f"or one number for all"
                )
        if len(self.heads) != depth:
            raise ValueError(
                f"num_attention_heads has {len(self.heads)} entries and block_out_channels has {depth}: give one per "
                f"level, or one number for all"
            )
        named = "attention_head_dim" if self.num_attention_heads is None else "num_attention_heads"
        for channels, heads, attended in zip(self.block_out_channels, self.heads, self.attended, strict=True):
            if attended and channels % heads:
                raise ValueError(f"block_out_channels {channels} is not divisible by its {heads} heads ({named})")
        dims = {d for d, on in zip(self._each("cross_attention_dim"), self.attended, strict=True) if on}
        if len(dims) > 1:
            raise ValueError(
                f"cross_attention_dim {sorted(dims)}: all levels read the same encoder_hidden_states, so give one width"
            )
        self.check_frequencies()
        return self
