"""`seehear sizes`: the models there are."""


def sizes() -> None:
    """List the model sizes with their counted parameters."""
    import torch
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from seehear.config import SIZES
    from seehear.model.usr import USR

    table = Table(box=SIMPLE_HEAD, title="Model sizes", title_justify="left", caption="Layers: encoder + decoder.")
    table.add_column("size", no_wrap=True)
    for heading in ("width", "heads", "FFN", "layers", "tokens", "frontends", "parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, config in SIZES.items():
        with torch.device("meta"):
            model = USR(config)
        frontends = [*model.video_frontend.parameters(), *model.audio_frontend.parameters()]
        table.add_row(
            name,
            str(config.dim),
            str(config.num_heads),
            str(config.ffn_dim),
            f"{config.num_encoder_layers} + {config.num_decoder_layers}",
            f"{config.vocab_size:,}",
            f"{sum(parameter.numel() for parameter in frontends) / 1e6:.1f} M",
            f"{model.num_parameters():,}",
        )
    Console().print(table)
