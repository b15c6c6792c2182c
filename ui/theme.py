"""The look of Gradio's own parts: quiet, one accent colour, the system's typeface. The rest is `assets/page/page.css`."""

from __future__ import annotations

import gradio as gr

_FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans CJK SC", "sans-serif"]

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.amber, neutral_hue=gr.themes.colors.stone, radius_size=gr.themes.sizes.radius_md, font=_FONT,
    font_mono=["ui-monospace", "Menlo", "monospace"],
)  # fmt: skip
