from __future__ import annotations

from workflows.nodes import catalog
from workflows.texts import say


def test_every_node_speaks_chinese() -> None:
    nodes = catalog()
    for name in nodes:
        texts = [nodes[name].title, nodes[name].help, *(declared.help for declared in nodes[name].inputs.values())]
        missing = [text for text in texts if text and say(text, "zh") == text]
        assert not missing, name


def test_what_has_no_translation_stays_as_it_is() -> None:
    assert say("Brighten", "zh") == "Brighten"
    assert say("Load VAE", "en") == "Load VAE"
    assert say("Load VAE", "fr") == "Load VAE"
