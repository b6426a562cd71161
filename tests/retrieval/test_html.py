"""What is read of a page, and on which line of its source it stands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.growth import growth

pytest.importorskip("pyarrow")
from mlx_stella.retrieval import reading
from mlx_stella.retrieval.html import html_to_text
from mlx_stella.retrieval.scanning import Key, SourceFile


def read(path) -> list:
    return list(reading.read(SourceFile(Key(str(path.parent), path.name), path), ()))


def test_pages_keep_their_lines_and_headings(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<html><head><title>Tea</title><style>p {}</style>\n<script>bad()</script></head>\n"
        "<body><h1>Green\n<b>tea</b></h1><p>Leaves &amp; water.</p>\n\n<p>Hot</p></body></html>"
    )
    (passage,) = read(page)
    assert passage.text.split() == "Tea # Green tea Leaves & water. Hot".split()
    lines = dict(zip(passage.text.split("\n"), passage.lines, strict=True))
    assert lines["Tea"] == 1 and lines["# Green tea"] == 3
    assert lines["Leaves & water."] == 4 and lines["Hot"] == 6


@pytest.mark.parametrize(
    "page",
    [
        "<head><title>Tea</title><meta name=a><script>bad()</script><h1>Green</h1><p>Hot",
        "<html><head><title>Tea<style>bad {}</style><script>bad()</script><h1>Green</h1>Hot",
        "<title>Tea</title><h1>Green</h1><svg><title>bad</title></svg>Hot",
        "<head><noscript><style>bad</style><title>bad</title><body>Tea<h1>Green</h1>Hot",
    ],
)
def test_pages_may_lack_tags(tmp_path, page):
    (tmp_path / "page.html").write_text(page)
    assert read(tmp_path / "page.html")[0].text.split() == "Tea # Green Hot".split()


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("<p>x<![1]>y", "xy"),
        ("<p>x<![CDATA[y]]>z", "xz"),
        ("a < b << c <3 d&lt;e", "a < b << c <3 d<e"),
        ("x<!-- > -- <p> --!>y<!-->z", "xyz"),
        ("x<a href='>'\ntitle=\">\" b=c'>y</a\n>z", "xyz"),
        ("x<?php a ?></ p></>y", "xy"),
        ("x<script>'</scripts>' <!-- </SCRIPT >y<style/>z", "xyz"),
        ("x<svg><svg>a</svg>b</svg>y<template>c<svg></template>z", "xyz"),
        ("x<p", "x"),
        ("x<!-- y", "x"),
        ("x<script>y", "x"),
        (f"&#{'0' * 200}65;&#65;&{'a' * 50};", f"\ufffdA&{'a' * 50};"),
    ],
)
def test_markup_as_browsers_read_it(page, words):
    assert html_to_text(page)[0].split() == words.split()


def test_lines_are_counted_in_the_source():
    page = "<!--\n-->a&#10;b\n<p\nclass=x>c<script>\n</script\n>d\r\n\n e"
    assert html_to_text(page) == ("a\nb\n\ncd\n e\n", [2, 2, 2, 4, 8, 8])


PIECES = (
    "< > </ <! <!-- --> <? <![ ]]> <a </a> =' =\" & &#1 &#x110000; <svg> </svg> <script> </script> "
)
PIECES += "<p> </p> <h1> </h1> <template> <body> x 茶 \x00"


@given(st.lists(st.sampled_from([*PIECES.split(" "), "\n", "\r", " "]), max_size=30).map("".join))
def test_any_page_is_read(page):
    text, lines = html_to_text(page)
    assert len(lines) == (text.count("\n") + 1 if text else 0)
    assert lines == sorted(lines) and all(1 <= line <= page.count("\n") + 1 for line in lines)


PATTERNS = (
    "<b>x</b>|<a |<a x='|<!-- --|<|</a |<![CDATA[|<script></|<svg></b>|<p>x<![1]>|<h1>x\n|&#1"
)


@pytest.mark.parametrize("piece", PATTERNS.split("|"))
def test_time_grows_with_the_size_of_a_page(piece):
    assert growth(lambda size: html_to_text(piece * size + "</svg>"), 20_000) < 8
