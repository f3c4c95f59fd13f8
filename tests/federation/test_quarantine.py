from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from fednb.errors import DataError
from fednb.federation import messages as m
from fednb.federation import mock, quarantine

SECRET = "row-17"


def png() -> bytes:
    about, file = PngImagePlugin.PngInfo(), io.BytesIO()
    about.add_text("Comment", SECRET)
    Image.new("RGB", (4, 3), "red").save(file, format="png", pnginfo=about)
    return file.getvalue()


def test_what_a_reader_does_not_see_does_not_leave() -> None:
    picture = png() + SECRET.encode()
    assert SECRET.encode() in png()
    data = {
        "text/plain": "mean 5\u200b\u202e   \nnext\t \n",
        "text/html": f"<p hidden>{SECRET}</p>",
        "application/vnd.fednb.view+json": {"x": SECRET},
        "image/svg+xml": SECRET,
        "image/png": base64.b64encode(picture).decode(),
    }
    said = [
        m.CellStarted("c"),
        m.Stream("c", "stdout", f"\x1b[31mred\x1b[0m\x1b]0;{'x'}\x07 \n"),
        m.Display("c", data, {"image/png": {SECRET: 1}}, display_id=SECRET, update=True),
        m.ClearOutput("c"),
        m.CellError("c", "ValueError", "no\u200b", ["\x1b[31ma\x1b[0m"]),
        m.CellDone("c", "error", 1.2345678, 987654, ""),
    ]
    kept = quarantine.visible(said)
    content = quarantine.pack(kept)
    assert SECRET.encode() not in content and base64.b64encode(SECRET.encode())[:6] not in content
    assert kept[1] == m.Stream("c", "stdout", "red]0;x\n")
    display = kept[2]
    assert isinstance(display, m.Display)
    assert display.data["text/plain"] == "mean 5\nnext\n" and set(display.data) == {"text/plain", "image/png"}
    assert (display.display_id, display.update, display.metadata) == (None, False, {})
    assert kept[3] == m.CellError("c", "ValueError", "no", ["a"])
    assert kept[4] == m.CellDone("c", "error", 1, 1, "")
    (bare,) = quarantine.pictures(kept)
    assert SECRET.encode() not in bare
    with Image.open(io.BytesIO(bare)) as image:
        assert image.size == (4, 3) and image.getpixel((0, 0)) == (255, 0, 0)
    assert quarantine.unpack(content) == kept


@pytest.mark.parametrize(
    "picture",
    ["no base64!", base64.b64encode(b"GIF89a").decode(), base64.b64encode(png()[:-12]).decode()]
    + [base64.b64encode(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 1 << 31) + b"IDAT" + zlib.compress(b"")).decode()],
)  # fmt: skip
def test_what_is_no_picture_is_left_out(picture: str) -> None:
    assert quarantine.visible([m.Display("c", {"image/png": picture})]) == []


def test_the_owner_can_open_all_that_would_leave(tmp_path: Path) -> None:
    picture = base64.b64encode(png()).decode()
    kept = quarantine.visible([m.Stream("c", "stdout", "5\n"), m.Display("c", {"image/png": picture})])
    files = quarantine.save(kept, tmp_path / "look")
    assert [file.name for file in files] == ["output.txt", "picture-1.png"]
    assert files[0].read_text().startswith("5\n[a picture of")
    with Image.open(files[1]) as image:
        assert image.size == (4, 3)
    assert (tmp_path / "look").stat().st_mode & 0o777 == 0o700
    with pytest.raises(DataError, match="damaged"):
        quarantine.unpack(b'[{"type": "Join"}]')


def test_invented_rows_have_the_shape_of_the_table_and_nothing_of_its_rows() -> None:
    kinds = {"id": "text", "n": "int", "x": "float", "b": "bool", "d": "date", "t": "text", "y": "int"}
    roles = {"id": "id", "y": "label"}
    columns = [m.ColumnInfo(name, kind, roles.get(name, "feature")) for name, kind in kinds.items()]  # type: ignore[arg-type]
    table = m.TableInfo("bank", "loans", 30_000, columns)
    made = mock.invent(table, {"x": (5, 6), "t": ("north", "south")})
    assert list(made.columns) == list(kinds) and len(made) == 200, "not the number of rows either"
    assert made["id"].is_unique and set(made["y"]) == {0, 1} and set(made["t"]) == {"north", "south"}
    assert made["x"].between(5, 6).all() and made["n"].dtype.kind == "i" and made["b"].dtype == bool
    assert pd.api.types.is_datetime64_any_dtype(made["d"])
    assert made.equals(mock.invent(table, {"x": (5, 6), "t": ("north", "south")})), "the same each time"
    assert abs(made[["n", "x"]].corr().iloc[0, 1]) < 0.3, "columns are drawn one by one"
