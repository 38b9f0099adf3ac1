"""The Space: a page, made with Gradio, that searches a catalogue. `python space/app.py` serves it."""
