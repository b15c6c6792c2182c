"""Prompt -> tokens -> conditioning, against what ComfyUI 0.3.64 recorded and against the formula worked out another way."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from errors import InputError
from pipelines import prompt

ROOT = Path(__file__).parent.parent.parent
RECORDED = json.loads((ROOT / "tests/data/comfyui_tokens.json").read_text(encoding="utf-8"))
START, END = 49406, 49407
CAT = 2368
ODD = [
    "",
    " \n\t ",
    "一只猫在月亮上",
    "🚀🔥👩‍👩‍👧‍👦",
    "\u200bzero\u200bwidth\u2060\ufeff",
    "\x00ctrl\x07\x1b[0m",
    "half a pair \ud83d",
    "\u0301\u0301\u0301",
    "<|endoftext|> (<|startoftext|>)",
    "((((",
    "))))",
    "\\",
    "(:1.3)",
    "(a:nan) (b:inf) (c:)",
    "embedding:",
    "e\u0301" * 3000,
]


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(ROOT / "assets/clip_tokenizer", local_files_only=True)


@pytest.fixture(scope="module")
def text_encoder():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    model = CLIPTextModel(CLIPTextConfig(vocab_size=49408, max_position_embeddings=12, **sizes)).eval()
    for parameter in model.parameters():  # the default spread, 0.02, hides mistakes
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@torch.no_grad()
def by_hand(model, blocks, layers=3, *, is_normed=True):
    """The text encoder's layers one after the other under a causal mask, then the final layer norm."""
    ids = torch.tensor(blocks)
    hidden = model.embeddings.token_embedding(ids) + model.embeddings.position_embedding(torch.arange(ids.shape[1]))
    mask = torch.full((ids.shape[1],) * 2, -torch.inf).triu(1)[None, None]
    for layer in model.encoder.layers[:layers]:
        hidden = layer(hidden, mask)
    return model.final_layer_norm(hidden) if is_normed else hidden


def contents(blocks):
    """Tokens of each block up to its end, without the start."""
    ids = [[token for token, _ in block] for block in blocks]
    return [block[1 : block.index(END)] for block in ids]


# The tokenizer


def test_tokenizer_loads_at_once_and_without_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network"))
    begin = time.perf_counter()
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "assets/clip_tokenizer", local_files_only=True)
    assert time.perf_counter() - begin < 5  # takes about 0.1 s; a busy machine is no failure
    assert (len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (49408, START, END, END)


@pytest.mark.parametrize("text", RECORDED["ids"])
def test_tokens_are_those_recorded(tokenizer, text):
    assert tokenizer(text)["input_ids"] == RECORDED["ids"][text]


@pytest.mark.parametrize("text", RECORDED["blocks"])
def test_blocks_are_those_recorded(tokenizer, text):
    blocks = prompt.tokenize(tokenizer, text)
    assert [[token for token, _ in block] for block in blocks] == RECORDED["blocks"][text]
    assert {weight for block in blocks for _, weight in block} == {1.0}


# Blocks


def test_empty_prompt_is_one_padded_block(tokenizer):
    assert prompt.tokenize(tokenizer, "") == [[(START, 1.0)] + [(END, 1.0)] * 76]


def test_padding_is_the_tokenizers():
    stable_diffusion_2 = CLIPTokenizer.from_pretrained(ROOT / "assets/clip_tokenizer", local_files_only=True, pad_token="!")
    [block] = prompt.tokenize(stable_diffusion_2, "cat")
    assert [token for token, _ in block] == [START, CAT, END] + [0] * 74


def test_75_tokens_fill_a_block_and_the_76th_begins_another(tokenizer):
    assert contents(prompt.tokenize(tokenizer, "cat " * 75)) == [[CAT] * 75]
    two = prompt.tokenize(tokenizer, "cat " * 76)
    assert contents(two) == [[CAT] * 75, [CAT]]
    assert {len(block) for block in two} == {77}
    assert [len(content) for content in contents(prompt.tokenize(tokenizer, "cat " * 200))] == [75, 75, 50]


def test_short_piece_is_kept_together_at_a_block_border(tokenizer):
    blocks = prompt.tokenize(tokenizer, "cat " * 73 + "(dog dog dog:1.5)" + " cat")
    dog = 1929
    assert contents(blocks) == [[CAT] * 73, [dog] * 3 + [CAT]]
    assert blocks[0][74:] == [(END, 1.0)] * 3
    assert [weight for _, weight in blocks[1][:6]] == [1.0, 1.5, 1.5, 1.5, 1.0, 1.0]


@pytest.mark.parametrize(("tokens", "first"), [(7, 70), (8, 75)])
def test_piece_of_8_tokens_is_divided_at_a_block_border(tokenizer, tokens, first):
    blocks = prompt.tokenize(tokenizer, "cat " * 70 + f"({'dog ' * tokens})")
    assert [len(content) for content in contents(blocks)] == [first, 70 + tokens - first]


def test_long_word_is_divided(tokenizer):
    word = tokenizer("a" * 2000, add_special_tokens=False, verbose=False)["input_ids"]
    assert len(word) > 75
    assert [token for content in contents(prompt.tokenize(tokenizer, "a" * 2000)) for token in content] == word


def test_short_blocks_hold_pieces_longer_than_themselves(tokenizer):
    assert contents(prompt.tokenize(tokenizer, "(cat cat cat)", length=4)) == [[CAT, CAT], [CAT]]
    with pytest.raises(ValueError, match="no room"):
        prompt.tokenize(tokenizer, "cat", length=2)


def test_textual_inversion_is_left_out_with_one_warning(tokenizer, caplog):
    blocks = prompt.tokenize(tokenizer, "embedding:easynegative, cat embedding:bad_hands (dog\nembedding:third:1.2)")
    assert contents(blocks) == [[267, CAT, 1929]]
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith("left out of the prompt: 'easynegative', 'bad_hands', 'third'")


def test_words_that_only_contain_embedding_stay(tokenizer, caplog):
    assert prompt.tokenize(tokenizer, "my embedding, an xembedding:y")[0][1][0] != END
    assert not caplog.records


@pytest.mark.parametrize("text", [None, 3, b"cat", ["cat"]])
def test_prompt_must_be_text(tokenizer, text):
    with pytest.raises(InputError, match="A prompt is text"):
        prompt.tokenize(tokenizer, text)


def test_prompt_must_not_be_endless(tokenizer):
    assert len(prompt.tokenize(tokenizer, "cat " * 5000)) == 67
    with pytest.raises(InputError, match=r"has 20,001 characters; at most 20,000"):
        prompt.tokenize(tokenizer, "x" * 20_001)


# Conditioning


@pytest.mark.parametrize("text", ODD, ids=lambda text: ascii(text)[:40])
def test_odd_text_never_fails(tokenizer, text_encoder, text):
    conditioning = prompt.encode(text_encoder, tokenizer, text)
    assert conditioning.dtype == torch.float32
    assert conditioning.shape[1] % 12 == 0
    assert conditioning.isfinite().all()


def test_conditioning_is_the_last_layer_of_every_block(tokenizer, text_encoder):
    blocks = [[START] + [CAT] * 10 + [END], [START] + [CAT] * 5 + [END] * 6]
    conditioning = prompt.encode(text_encoder, tokenizer, "cat " * 15)
    assert conditioning.shape == (1, 24, 16)
    torch.testing.assert_close(conditioning, by_hand(text_encoder, blocks).reshape(1, 24, 16))
    assert not conditioning.requires_grad


@pytest.mark.parametrize(("clip_skip", "layers"), [(0, 3), (-1, 3), (-2, 2), (-3, 1), (-4, 3), (-24, 3)])
def test_clip_skip_counts_layers_from_the_end(tokenizer, text_encoder, clip_skip, layers):
    conditioning = prompt.encode(text_encoder, tokenizer, "cat", clip_skip=clip_skip)
    torch.testing.assert_close(conditioning, by_hand(text_encoder, [[START, CAT] + [END] * 10], layers))


@pytest.mark.parametrize("clip_skip", [1, True, "-2", -1.0, None])
def test_clip_skip_must_be_a_layer(tokenizer, text_encoder, clip_skip):
    with pytest.raises(InputError, match="layers count from the end"):
        prompt.encode(text_encoder, tokenizer, "cat", clip_skip=clip_skip)


def test_weights_scale_the_distance_from_the_empty_prompt(tokenizer, text_encoder):
    conditioning = prompt.encode(text_encoder, tokenizer, "cat (dog:1.4) " + "cat " * 8 + "(dog:-0.5)")
    blocks = [[START, CAT, 1929, *[CAT] * 8, END], [START, 1929] + [END] * 10]
    z, empty = by_hand(text_encoder, blocks), by_hand(text_encoder, [[START] + [END] * 11])[0]
    expected = z.clone()
    for channel in range(16):
        expected[0, 2, channel] = empty[2, channel] + 1.4 * (z[0, 2, channel] - empty[2, channel])
        expected[1, 1, channel] = empty[1, channel] - 0.5 * (z[1, 1, channel] - empty[1, channel])
    torch.testing.assert_close(conditioning, expected.reshape(1, 24, 16))
    assert (expected - z).abs().max() > 0.1


def test_weight_0_is_the_empty_prompt_at_that_place(tokenizer, text_encoder):
    conditioning = prompt.encode(text_encoder, tokenizer, "(cat:0)")
    empty = prompt.encode(text_encoder, tokenizer, "")
    torch.testing.assert_close(conditioning[:, 1], empty[:, 1])


def test_weight_beyond_computing_is_named(tokenizer, text_encoder):
    with pytest.raises(InputError, match=r"weight 1e\+39 of 'cat' is too large"):
        prompt.encode(text_encoder, tokenizer, "(cat:1e39) dog")
    with pytest.raises(InputError, match=r"weight inf of 'cat'"):
        prompt.encode(text_encoder, tokenizer, "(" * 9000 + "cat" + ")" * 9000)


def test_same_text_same_tensor_other_text_other_tensor(tokenizer, text_encoder):
    first, again = (prompt.encode(text_encoder, tokenizer, "a (red:1.2) cat") for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, prompt.encode(text_encoder, tokenizer, "a (red:1.3) cat"))


def test_half_precision_weights_give_float32(tokenizer, text_encoder):
    half = CLIPTextModel(text_encoder.config).to(torch.bfloat16).eval()
    assert prompt.encode(half, tokenizer, "a (red:1.2) cat").dtype == torch.float32


@pytest.fixture(scope="module")
def second_encoder():
    torch.manual_seed(1)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "projection_dim": 10}
    config = CLIPTextConfig(vocab_size=49408, max_position_embeddings=12, eos_token_id=END, **sizes)
    model = CLIPTextModelWithProjection(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def test_two_encoders_stop_before_their_last_layer_and_the_second_is_pooled(tokenizer, text_encoder, second_encoder):
    """Each by hand: all layers but one and no final norm; the first block's end token after all of them, normed and projected."""
    filling_with_0 = CLIPTokenizer.from_pretrained(ROOT / "assets/clip_tokenizer", local_files_only=True, pad_token="!")
    towers = ((text_encoder, tokenizer), (second_encoder, filling_with_0))
    context, pooled = prompt.encode_xl(*towers, "cat (dog:1.4) " + "cat " * 10)
    assert (context.shape, pooled.shape, pooled.dtype) == ((1, 24, 40), (1, 10), torch.float32)
    for model, pad, part in ((text_encoder, END, context[0, :, :16]), (second_encoder.text_model, 0, context[0, :, 16:])):
        blocks = [[START, CAT, 1929, *[CAT] * 8, END], [START, CAT, CAT, END] + [pad] * 8, [START, END] + [pad] * 10]
        *z, empty = by_hand(model, blocks, layers=2, is_normed=False)
        z[0][2] = empty[2] + 1.4 * (z[0][2] - empty[2])
        torch.testing.assert_close(part, torch.cat(z))
    whole = by_hand(second_encoder.text_model, [[START, CAT, 1929, *[CAT] * 8, END]])
    torch.testing.assert_close(pooled, second_encoder.text_projection(whole[:, 11]))


# Two prompts in one batch


@pytest.mark.parametrize(("one", "other", "both"), [(77, 77, 77), (77, 154, 154), (154, 231, 462), (12, 1, 12)])
def test_match_lengths_repeats_to_the_least_common_multiple(one, other, both):
    a, b = torch.randn(1, one, 4), torch.randn(1, other, 4)
    long_a, long_b = prompt.match_lengths(a, b)
    assert long_a.shape == long_b.shape == (1, both, 4)
    assert torch.equal(long_a, torch.cat([a] * (both // one), dim=1))
    assert torch.equal(long_b, torch.cat([b] * (both // other), dim=1))


def test_repeating_leaves_cross_attention_as_it_was():
    query, key = torch.randn(1, 5, 8), torch.randn(1, 7, 8)
    long_key, _ = prompt.match_lengths(key, torch.randn(1, 14, 8))
    attend = torch.nn.functional.scaled_dot_product_attention
    torch.testing.assert_close(attend(query, key, key), attend(query, long_key, long_key))


@pytest.mark.parametrize(("one", "other", "fits"), [(1, 1, True), (1, 4, True), (1, 5, False), (2, 3, True), (60, 61, False)])
def test_fit_one_batch_stops_at_four_times_the_shorter(one, other, fits):
    assert prompt.fit_one_batch(torch.empty(1, 77 * one, 1), torch.empty(1, 77 * other, 1)) is fits


def test_importing_prompt_leaves_transformers_alone():
    code = "import sys; import pipelines.prompt; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
