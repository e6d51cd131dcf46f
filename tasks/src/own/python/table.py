"""Reads the tables that people have: delimited text in any common encoding, gzipped or not, and Parquet.

The same module reads when a task is prepared and when a delivered model predicts, so that both see the same table. It
knows nothing of targets, splits or models. What cannot be read raises `Unreadable`, a sentence for whoever has the file.
"""

import codecs
import csv
import gzip
import io
import pathlib
import re

import numpy as np
import pandas as pd

# The words that stand for a missing value: what pandas takes for one by itself, and the question mark of older tables.
MISSING = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"]
    + ["NULL", "NaN", "None", "n/a", "nan", "null", "?"]
)
TRUTH = {"true": "1", "false": "0"}
DELIMITERS = (",", ";", "\t", "|")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

# Cells that are held at once.
CHUNK_CELLS = 2_000_000
# How much of a file is looked at to tell its delimiter.
SAMPLE = 1 << 18

MAGIC = [
    (b"PK\x03\x04", "a zip archive, as Excel writes it: save the sheet as CSV, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file: save the sheet as CSV"),
    (b"%PDF", "a PDF document: a table in CSV or Parquet is needed"),
    (b"\x89PNG", "a picture: a directory of pictures is needed, or a table"),
    (b"\xff\xd8\xff", "a picture: a directory of pictures is needed, or a table"),
    (b"SQLite format 3", "a database: export the table as CSV"),
    (b"7z\xbc\xaf", "an archive: unpack it"),
    (b"BZh", "packed with bzip2: unpack it"),
    (b"\xfd7zXZ", "packed with xz: unpack it"),
    (b"(\xb5/\xfd", "packed with zstd: unpack it"),
]


class Unreadable(Exception):
    """A sentence for the person whose file it is."""


class Table:
    """A table that is read in pieces. `said` holds what was found out and what was passed over."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.name = self.path.name
        self.said = []
        self.columns = []

    def pieces(self, columns=None):
        """Yields the rows as DataFrames, words as they stand in the file; of some columns, or of all."""
        raise NotImplementedError

    def chunks(self):
        """Yields the rows as DataFrames: words as `str` without spaces around them, missing values as None."""
        for piece in self.pieces():
            yield tidy(piece)


def open_table(path):
    """Finds out what a file is and returns its table."""
    path = pathlib.Path(path)
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise Unreadable(f"{path.name} is empty: a table with a line of names and rows below it is needed")
    if head.startswith(b"PAR1"):
        return ParquetTable(path)
    for magic, what in MAGIC:
        if head.startswith(magic):
            raise Unreadable(f"{path.name} is {what}")
    return TextTable(path, packed=head.startswith(b"\x1f\x8b"))


class TextTable(Table):
    """Delimited text."""

    def __init__(self, path, packed):
        super().__init__(path)
        self.packed = packed
        self.errors = "strict"
        self.encoding = self._encoding()
        with self._text() as text:
            sample = text.read(SAMPLE)
            whole = len(sample) < SAMPLE
        self._refuse_other_text(sample)
        self.delimiter, records = self._delimiter(sample, whole)
        self.header = self._header(records)
        self.skipped = self._row_numbers(records)
        self.columns = [name for name in self.header if name not in self.skipped]

    def _bytes(self):
        return gzip.open(self.path, "rb") if self.packed else open(self.path, "rb")

    def _text(self):
        return io.TextIOWrapper(self._bytes(), encoding=self.encoding, newline="", errors=self.errors)

    def _encoding(self):
        """Tells the encoding by a mark at the beginning, else by whether all of the file is UTF-8."""
        try:
            with self._bytes() as file:
                head = file.read(4096)
                marks = [(codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")]
                marks += [(codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")]
                found = next((name for mark, name in marks if head.startswith(mark)), None)
                if found is None and b"\0" in head:
                    found = _wide(head)
                    if found is None:
                        raise Unreadable(f"{self.name} is no table: it holds binary data; CSV or Parquet is needed")
                found = found or "utf-8"
                file.seek(0)
                position = _first_error(file, found)
        except (EOFError, OSError) as error:
            raise Unreadable(f"{self.name} cannot be unpacked: {error}") from None
        if position is None:
            if found not in ("utf-8", "utf-8-sig"):
                self.said.append(f"it is read as {found.upper()}")
            return found
        if found != "utf-8":
            raise Unreadable(f"{self.name} is damaged: it begins as {found.upper()} and is none from byte {position} on")
        self.said.append(
            f"it is no UTF-8 (byte {position}) and is read as Windows-1252, Latin-1 where that has no character; "
            "save it as UTF-8 if names or words look wrong"
        )
        codecs.register_error("mlgym-latin", lambda error: (error.object[error.start : error.end].decode("latin-1"), error.end))
        self.errors = "mlgym-latin"
        return "cp1252"

    def _refuse_other_text(self, sample):
        begin = sample.lstrip()[:200].lower()
        if begin.startswith(("<!doctype", "<html", "<?xml")):
            raise Unreadable(f"{self.name} is a web page or XML, no table: CSV or Parquet is needed")
        if begin.startswith(("{", "[{", "[\n{")):
            raise Unreadable(f"{self.name} is JSON: write it as CSV, one row a line, or as Parquet")
        if not sample.strip():
            raise Unreadable(f"{self.name} is empty: a table with a line of names and rows below it is needed")

    def _delimiter(self, sample, whole):
        """Chooses the delimiter by which the most records have the same number of fields, more than one."""
        best = None
        for delimiter in DELIMITERS:
            records = _records(sample, delimiter, whole)
            if not records:
                continue
            widths = np.array([len(record) for record in records])
            values, counts = np.unique(widths, return_counts=True)
            usual = values[counts.argmax()]
            rank = (float((widths == usual).mean()) if usual > 1 else 0.0, int(usual))
            if best is None or rank > best[0]:
                best = (rank, delimiter, records)
        if best is None or best[0][0] == 0.0:
            raise Unreadable(
                f"{self.name} is no table: no line of it is divided by commas, semicolons, tabs or bars into the same "
                "number of fields"
            )
        (share, usual), delimiter, records = best
        if share < 0.5:
            raise Unreadable(
                f"{self.name} is no table: its lines have different numbers of fields, whatever divides them"
            )
        if delimiter != ",":
            self.said.append(f"its fields are divided by {NAMES[delimiter]}")
        return delimiter, records

    def _header(self, records):
        header = [name.strip() for name in records[0]]
        if len(records) > 1:
            width = len(records[1])
            if width > len(header):
                raise Unreadable(
                    f"{self.name} has {len(header)} names in its first line and {width} fields in its second: give every "
                    "column a name"
                )
        check_names(self.name, header, self._looks_like_numbers(records))
        return header

    def _looks_like_numbers(self, records):
        values = [row[0].strip() for row in records[1:200] if row]
        # What pandas writes before a table's first column when it keeps its row numbers.
        return records[0][0].strip() == "" and bool(values) and values == [str(n) for n in range(len(values))]

    def _row_numbers(self, records):
        if self.header[0] != "":
            return []
        self.said.append("its first column has no name and counts the rows: it is left out")
        return [""]

    def pieces(self, columns=None):
        size = max(1000, CHUNK_CELLS // max(1, len(self.header)))
        short = 0
        names = [name or "\0" for name in self.header]
        try:
            reader = pd.read_csv(
                self._bytes() if self.packed else self.path,
                sep=self.delimiter,
                encoding=self.encoding,
                encoding_errors=self.errors,
                header=0,
                names=names,
                index_col=False,
                dtype=str,
                keep_default_na=False,
                na_filter=True,
                na_values=[],
                skipinitialspace=True,
                chunksize=size,
                low_memory=True,
            )
            for chunk in reader:
                # Fields that a line lacks are the only ones that are no text here.
                short += int(chunk[names[-1]].isna().sum()) if columns is None else 0
                # All columns are read whatever is asked for: lines that are too long are only found that way.
                yield chunk.drop(columns=["\0"], errors="ignore") if columns is None else chunk[columns]
        except pd.errors.ParserError as error:
            raise Unreadable(self._explain(str(error))) from None
        except pd.errors.EmptyDataError:
            raise Unreadable(f"{self.name} has a line of names and no rows") from None
        if short:
            self.said.append(f"{short:,} of its lines have fewer fields than names: what they lack counts as missing")

    def _explain(self, text):
        found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text)
        if found:
            wanted, line, saw = found.groups()
            return (
                f"{self.name} has {saw} fields in line {line} where {wanted} belong: put values that hold "
                f"{NAMES[self.delimiter]} in quotes, or mend the line"
            )
        if "EOF inside string" in text:
            return f"{self.name} opens a quote and never closes it: mend the line, or double the quotes within values"
        return f"{self.name} cannot be read as a table: {text.splitlines()[0]}"


class ParquetTable(Table):
    """Parquet, by pyarrow."""

    def __init__(self, path):
        super().__init__(path)
        import pyarrow as pa
        import pyarrow.parquet as parquet

        try:
            self.file = parquet.ParquetFile(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Unreadable(f"{self.name} is no whole Parquet file: {str(error).splitlines()[0]}") from None
        schema = self.file.schema_arrow
        self.skipped = [name for name in schema.names if name.startswith("__index_level_")]
        names = [name for name in schema.names if name not in self.skipped]
        check_names(self.name, [name.strip() for name in names], False)
        for name in names:
            kind = schema.field(name).type
            if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                raise Unreadable(f"{self.name} has {kind} in the column {name!r}, not one value a row: leave it out or spread it")
        self.source, self.columns = names, [name.strip() for name in names]

    def pieces(self, columns=None):
        import pyarrow as pa

        source = dict(zip(self.columns, self.source))
        wanted = columns or self.columns
        size = max(1000, CHUNK_CELLS // max(1, len(wanted)))
        try:
            for batch in self.file.iter_batches(batch_size=size, columns=[source[name] for name in wanted]):
                found = dict(zip(batch.schema.names, batch.columns))
                yield pd.DataFrame({name: _plain(found[source[name]], pa) for name in wanted})
        except (pa.ArrowException, OSError) as error:
            raise Unreadable(f"{self.name} is damaged: {str(error).splitlines()[0]}") from None


def _plain(column, pa):
    """Turns an Arrow column into numbers or words."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8()).to_pandas().astype(float)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.to_pandas()
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64()).to_pandas()
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        when = pd.to_datetime(pd.Series(column.to_pandas()), errors="coerce")
        when = when.dt.tz_localize(None) if when.dt.tz is not None else when
        whole = (when.dropna() == when.dropna().dt.normalize()).all()
        return clean(when.dt.strftime("%Y-%m-%d" if whole else "%Y-%m-%d %H:%M:%S").astype(object))
    return clean(column.cast(pa.string()).to_pandas().astype(object))


def check_names(file, names, numbered):
    """Refuses names that are missing or given twice. `numbered` allows a first column without one."""
    if all(_is_number(name) for name in names) and len(names) > 1:
        raise Unreadable(
            f"{file} has no names: its first line holds only numbers ({', '.join(names[:4])}…); write a line of names above it"
        )
    for position, name in enumerate(names):
        if not name and not (position == 0 and numbered):
            raise Unreadable(f"{file} has no name for its column {position + 1}: write one into the first line")
    seen = {}
    for position, name in enumerate(names):
        if name in seen:
            raise Unreadable(
                f"{file} has the name {name!r} twice, for its columns {seen[name] + 1} and {position + 1}: rename one"
            )
        seen[name] = position


def tidy(piece):
    """Cleans all columns of a piece."""
    return pd.DataFrame({name: clean(piece[name]) for name in piece.columns}, index=piece.index)


def once_each(function, values):
    """Applies a function to each different value once, and spreads what it returns; a column of words has few."""
    codes, found = pd.factorize(values, use_na_sentinel=False)
    return function(pd.Series(found, name=values.name)).take(codes).set_axis(values.index)


def clean(values):
    """Takes spaces away and makes what stands for a missing value None."""
    if pd.api.types.is_numeric_dtype(values):
        return values
    values = values.astype("str").str.strip()
    return values.mask(values.isin(MISSING))


# What stands between thousands, beside a point or a comma.
GAPS = "'’ \u00a0\u202f"


def _grouped(decimal, group):
    """What a number looks like whose thousands are set apart."""
    between = re.escape(group) if group in ".," else f"[{GAPS}]"
    return rf"[+-]?\d{{1,3}}(?:{between}\d{{3}})+(?:{re.escape(decimal)}\d+)?"


def notation(words, delimiter=None):
    """How a column's numbers are written: (decimal mark, what sets thousands apart, or nothing).

    Only what can be nothing else is taken for thousands: 1,234.5 and 1,234,567 are, and 1,234 is where no number has another
    count of digits after its comma, and whole numbers below a thousand or a file divided by commas speak for it."""
    words = words.dropna()

    def has(pattern):
        return bool(words.str.fullmatch(pattern).any())

    if has(r"[+-]?\d{1,3}(?:,\d{3})+\.\d+") or has(r"[+-]?\d{1,3}(?:,\d{3}){2,}"):
        return ".", ","
    if has(r"[+-]?\d{1,3}(?:\.\d{3})+,\d+") or has(r"[+-]?\d{1,3}(?:\.\d{3}){2,}"):
        return ",", "."
    if has(rf"[+-]?\d{{1,3}}(?:[{GAPS}]\d{{3}})+(?:[.,]\d+)?"):
        return ("," if has(r".*,\d+") else "."), " "
    commas = words[words.str.contains(",", regex=False)]
    if len(commas) and commas.str.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}").all():
        if delimiter == "," or has(r"[+-]?\d{1,3}"):
            return ".", ","
    return ("," if delimiter == ";" else "."), ""


def numbers(values, decimal=".", group=""):
    """Reads words as numbers; what is none becomes NaN, and so does what is not finite."""
    if pd.api.types.is_numeric_dtype(values):
        read = values.astype(float)
    else:
        words = values
        if group:
            between = re.escape(group) if group in ".," else f"[{GAPS}]"
            plain = words.str.replace(between, "", regex=True)
            words = words.mask(words.str.fullmatch(_grouped(decimal, group)).fillna(False).astype(bool), plain)
        words = words.str.replace(",", ".", regex=False) if decimal == "," else words
        words = words.mask(words.str.lower().isin(TRUTH), words.str.lower().map(TRUTH))
        read = pd.to_numeric(words, errors="coerce").astype(float)
    return read.where(np.isfinite(read))


def _is_number(text):
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def _wide(head):
    """Tells UTF-16 without a mark by where its zero bytes lie."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = max(1, len(head) // 2)
    if odd > 0.6 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.6 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def _first_error(file, encoding):
    """Decodes a whole file in pieces; returns the position of the first byte that cannot be, or None."""
    decoder = codecs.getincrementaldecoder(encoding)()
    position = 0
    while True:
        piece = file.read(1 << 20)
        try:
            decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            return position + error.start
        if not piece:
            return None
        position += len(piece)


def _records(sample, delimiter, whole):
    """Splits the beginning of a file into records; the last may be cut off."""
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, skipinitialspace=True)
    records = []
    try:
        for record in reader:
            if record and any(field.strip() for field in record):
                records.append(record)
            if len(records) == 1000:
                return records
    except csv.Error:
        return records
    return records if whole else records[:-1]
