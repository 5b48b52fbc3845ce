"""A local web page on which clicks become prompts, made with Gradio."""

import os
import uuid
from pathlib import Path

import numpy as np

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # a local page tells nobody of itself
import gradio as gr

from mamba_vision.apis.prompt_inference import PromptPredictor
from mamba_vision.apis.prompt_session import MODES, PromptSession
from mamba_vision.models.tasks.prompt_segmentor import PromptSegmentor

TITLE = "Segment by boxes and points"
HELP = "Load a picture, choose what a click means, and click on the large picture. All stays on this computer."
LARGEST = "64mb"  # of a picture


def build_page(
    model: PromptSegmentor, folder: str | Path, picture: str | Path | None = None, amp: bool = False
) -> gr.Blocks:
    """The page, not yet served.

    Args:
        model: of `init_prompt_model`. All visitors share it; each has a picture and prompts of their own.
        folder: where masks to be saved wait.
        picture: one to begin with.
        amp: compute in half precision.
    """

    def shown(session: PromptSession | None) -> tuple:
        """The state, the large picture, the words below the buttons, and the mask to save."""
        if session is None:
            return None, None, "", gr.update(value=None, interactive=False)
        mask = session.result.save(Path(folder, session.name, "mask.png"))
        return session, session.view(), session.summary(), gr.update(value=str(mask), interactive=True)

    def load(session: PromptSession | None, image: np.ndarray | None) -> tuple:
        if image is None:
            return shown(None)
        if session is not None and np.array_equal(session.predictor.image, image):
            return shown(session)  # Gradio may tell of a picture twice; clicks in between are kept
        predictor = PromptPredictor(model, amp).set_image(np.ascontiguousarray(image))
        return shown(PromptSession(predictor, name=uuid.uuid4().hex))

    def click(session: PromptSession | None, mode: str, event: gr.SelectData) -> tuple:
        if session is not None:
            session.click(*(int(number) for number in event.index), mode)
        return shown(session)

    def undo(session: PromptSession | None) -> tuple:
        if session is not None:
            session.undo()
        return shown(session)

    def clear(session: PromptSession | None) -> tuple:
        if session is not None:
            session.clear()
        return shown(session)

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        state = gr.State(None, time_to_live=6 * 3600)
        gr.Markdown(f"## {TITLE}\n{HELP}")
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                upload = gr.Image(
                    value=None if picture is None else str(picture), label="Picture", height=200, format="png",
                    sources=["upload", "clipboard"], elem_id="upload", buttons=[],
                )  # fmt: skip
                mode = gr.Radio(list(MODES), value=MODES[0], label="A click is a", elem_id="mode")
                with gr.Row():
                    back = gr.Button("Undo", elem_id="undo", size="sm")
                    empty = gr.Button("Clear prompts", elem_id="clear", size="sm")
                words = gr.Markdown(elem_id="summary")
                save = gr.DownloadButton("Save mask as PNG", elem_id="save", interactive=False, size="sm")
            with gr.Column(scale=3):
                canvas = gr.Image(
                    label="Click here", interactive=False, format="png", height=640, elem_id="canvas",
                    buttons=["fullscreen"],
                )  # fmt: skip
        outputs = [state, canvas, words, save]
        # By default Gradio drops a click made before the last one is answered, and lays its spinner over the picture,
        # which catches it; here each counts, one after another.
        queue = {"concurrency_id": "session", "concurrency_limit": 1, "show_progress_on": words}
        every = {"trigger_mode": "multiple", **queue}
        upload.change(load, [state, upload], outputs, **queue)
        canvas.select(click, [state, mode], outputs, **every)
        back.click(undo, state, outputs, **every)
        empty.click(clear, state, outputs, **every)
        if picture is not None:
            page.load(load, [state, upload], outputs, **queue)
    return page


def serve(page: gr.Blocks, port: int | None = None, open_browser: bool = False, wait: bool = True) -> str:
    """Serve the page to this computer alone, until Ctrl-C unless `wait` is off; its address.

    Args:
        port: None takes the first free one from 7860 on.

    Raises:
        OSError: the port is taken.
    """
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # nothing from elsewhere
    _, address, _ = page.launch(
        server_name="127.0.0.1", server_port=port, share=False, inbrowser=open_browser, prevent_thread_lock=True,
        quiet=True, show_error=True, max_file_size=LARGEST, ssr_mode=False, theme=theme, footer_links=[],
    )  # fmt: skip
    if wait:
        print(f"Serving on {address} to this computer alone. Ctrl-C ends it.", flush=True)
        page.block_thread()
    return address
