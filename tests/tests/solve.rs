//! Data of the user's own: what is made of it, what is refused and in which words, and a solution from end to end.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test needs and does not get must fail it"
)]

use std::path::Path;
use std::time::Duration;

use mlgym_sandbox::docker::DockerBackend;
use mlgym_sandbox::image::{ImageBuilder, Images};
use mlgym_sandbox::{CaptureLimits, Command, CommandEnd, FileSource, Limits, SandboxSpec, User};
use mlgym_tasks::own::{FILES, OwnRequest, TargetKind, Workshop};
use mlgym_tasks::{OwnError, OwnTask};
use mlgym_tests::Lab;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

async fn image(name: &str) -> String {
    let docker = DockerBackend::connect(Default::default()).await.expect("these tests need a Docker engine");
    let images = ImageBuilder::new(&docker, std::sync::Arc::new(|_| {}), CancellationToken::new());
    images.builtin(name).await.unwrap().reference
}

/// Runs the preparation on each case, in one sandbox and with the libraries loaded once.
const DRIVER: &str = r#"
import json, os, pathlib, sys, traceback
os.environ["MLGYM_OUTPUT"] = "/tmp/unused"
sys.path.insert(0, "/workspace")
import pyarrow.parquet, sklearn.metrics
import prepare
outcomes = {}
for case in sorted(pathlib.Path("/workspace/cases").iterdir()):
    work = pathlib.Path("/tmp/cases") / case.name
    (work / "source").mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.chdir(work)
            for path in case.iterdir():
                if path.name not in ("request.json", "make.py"):
                    (work / "source" / path.name).write_bytes(path.read_bytes())
            if (case / "make.py").exists():
                exec((case / "make.py").read_text(), {})
            (work / "request.json").write_text((case / "request.json").read_text())
            prepare.OUTPUT = work / "out"
            try:
                prepare.main()
            except SystemExit as end:
                code = end.code or 0
            else:
                code = 0
        except BaseException:
            (work / "trace.txt").write_text(traceback.format_exc())
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    read = lambda name: (work / name).read_text() if (work / name).exists() else None
    facts = read("out/facts.json")
    outcomes[case.name] = {
        "code": os.waitstatus_to_exitcode(status), "trace": read("trace.txt"), "refusal": read("out/refusal.txt"),
        "facts": json.loads(facts) if facts else None, "schema": json.loads(read("out/public/schema.json") or "null"),
    }
print(json.dumps(outcomes))
"#;

/// One file, what is asked of it, and what is to come of it.
struct Case {
    name: &'static str,
    file: &'static str,
    content: Vec<u8>,
    /// Python that makes the file or more of them in `source/`.
    make: &'static str,
    asked: Value,
    expected: Expected,
}

enum Expected {
    /// A refusal with these words.
    Refused(&'static [&'static str]),
    /// A task, of which some facts are these, and of which these words are said.
    Made(Value, &'static [&'static str]),
}

fn rows(header: &str, count: usize, row: impl Fn(usize) -> String) -> Vec<u8> {
    let lines = (0..count).map(|index| row(index) + "\n");
    (format!("{header}\n") + &lines.collect::<String>()).into_bytes()
}

/// A table of 40 rows that nothing is wrong with.
fn good() -> Vec<u8> {
    rows("x,word,y", 40, |row| format!("{},w{},{}", row * 7 % 40, row % 3, ["no", "yes"][row % 2]))
}

fn case(name: &'static str, content: impl Into<Vec<u8>>, asked: Value, expected: Expected) -> Case {
    Case { name, file: "data.csv", content: content.into(), make: "", asked, expected }
}

fn made(name: &'static str, make: &'static str, asked: Value, expected: Expected) -> Case {
    Case { name, file: "", content: Vec::new(), make, asked, expected }
}

fn utf16(text: &[u8], mark: bool) -> Vec<u8> {
    let text = std::str::from_utf8(text).unwrap();
    let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
    units.flat_map(u16::to_le_bytes).collect()
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

fn refused_layouts() -> Vec<Case> {
    use Expected::Refused;
    let y = || json!({ "target": "y" });
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    vec![
        case("empty", "", y(), Refused(&["data.csv is empty"])),
        case("blank", "\n\n \n", y(), Refused(&["is empty"])),
        case("header only", "x,y\n", y(), Refused(&["no rows"])),
        case("one row", "x,y\n1,2\n", y(), Refused(&["has one row with a target", "20 are the least"])),
        case("few rows", rows("x,y", 7, |row| format!("{row},{row}")), y(), Refused(&["7 rows"])),
        case(
            "one column",
            rows("y", 40, |row| format!("{row}")),
            y(),
            Refused(&["no line of it is divided"]),
        ),
        case(
            "no target",
            good(),
            json!({ "target": "why" }),
            Refused(&["no column 'why'", "it has x, word, y"]),
        ),
        case("near target", good(), json!({ "target": "Word" }), Refused(&["did you mean 'word'?"])),
        case(
            "twice",
            rows("x,y,x", 40, |row| format!("{row},{row},1")),
            y(),
            Refused(&["'x' twice, for its columns 1 and 3"]),
        ),
        case(
            "nameless",
            rows("x,,y", 40, |row| format!("{row},1,{row}")),
            y(),
            Refused(&["no name for its column 2"]),
        ),
        case(
            "no header",
            rows("1,2,3", 40, |row| format!("{row},1,2")),
            y(),
            Refused(&["has no names", "write a line of names above"]),
        ),
        case(
            "too few names",
            rows("x,y", 40, |row| format!("{row},1,2")),
            y(),
            Refused(&["2 names in its first line and 3 fields in its second"]),
        ),
        case(
            "ragged",
            text(good()) + "1,2,3,4,5\n",
            y(),
            Refused(&["5 fields in line 42 where 3 belong", "in quotes"]),
        ),
        case(
            "open quote",
            text(good()) + "1,\"a,yes\n",
            y(),
            Refused(&["opens a quote and never closes it"]),
        ),
    ]
}

fn refused_targets() -> Vec<Case> {
    use Expected::Refused;
    let y = || json!({ "target": "y" });
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    vec![
        case("one class", rows("x,y", 40, |row| format!("{row},a")), y(), Refused(&["is 'a' in every row"])),
        case("constant", rows("x,y", 40, |row| format!("{row},3.5")), y(), Refused(&["in every row"])),
        case(
            "lone class",
            text(good()) + "1,w,maybe\n",
            y(),
            Refused(&["one row only ('maybe')", "leave those rows out"]),
        ),
        case(
            "target empty",
            rows("x,y", 40, |row| format!("{row},")),
            y(),
            Refused(&["missing in every row"]),
        ),
        case(
            "features empty",
            rows("x,z,y", 40, |row| format!(",,{}", row % 2)),
            y(),
            Refused(&["no column is left to predict from", "'x'", "empty in every row"]),
        ),
        case(
            "names as target",
            rows("x,y", 60, |row| format!("{row},n{row}")),
            y(),
            Refused(&["neither classes nor numbers"]),
        ),
        case(
            "mostly numbers",
            rows("x,y", 60, |row| if row == 3 { "3,many".to_owned() } else { format!("{row},{row}.5") }),
            y(),
            Refused(&["in 1 of 60 rows", "'many'", "--task regression"]),
        ),
        case(
            "numbers in two ways",
            rows("x,y", 60, |row| format!("{row},{row}{}", if row % 2 == 0 { " EUR" } else { "" })),
            json!({ "target": "y", "task": "regression" }),
            Refused(&["cannot be read as a number in 50% of its rows, as in '0 EUR'"]),
        ),
        case(
            "words as numbers",
            good(),
            json!({ "target": "y", "task": "regression" }),
            Refused(&["holds words", "--task classification"]),
        ),
        case(
            "wrong metric",
            good(),
            json!({ "target": "y", "task": "classification", "metric": "rmse" }),
            Refused(&["--metric rmse does not go with --task classification", "log_loss"]),
        ),
    ]
}

fn refused_formats() -> Vec<Case> {
    use Expected::Refused;
    let y = || json!({ "target": "y" });
    vec![
        case("binary", vec![0_u8, 1, 2, 3, 250, 0, 0, 9, 200, 7], y(), Refused(&["binary data"])),
        case("zip", b"PK\x03\x04xxxxxxxxxxx".to_vec(), y(), Refused(&["zip archive", "Excel"])),
        case("html", "<!DOCTYPE html><html><body>x,y</body></html>", y(), Refused(&["web page"])),
        case("json", "[{\"x\": 1, \"y\": 2}]", y(), Refused(&["is JSON"])),
        case(
            "prose",
            "Dear reader,\nthis is no table at all.\nIt is\na letter.\n",
            y(),
            Refused(&["is no table"]),
        ),
        case("cut parquet", b"PAR1 and then nothing".to_vec(), y(), Refused(&["no whole Parquet file"])),
        case(
            "cut gzip",
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03abc".to_vec(),
            y(),
            Refused(&["unpacked"]),
        ),
        case(
            "cut utf-16",
            {
                let mut bytes = utf16(&good(), true);
                bytes.pop();
                bytes
            },
            y(),
            Refused(&["is damaged"]),
        ),
    ]
}

fn refused_splits_and_images() -> Vec<Case> {
    use Expected::Refused;
    let y = || json!({ "target": "y" });
    vec![
        case(
            "times are words",
            good(),
            json!({ "target": "y", "time": "word" }),
            Refused(&["neither a date nor a number"]),
        ),
        case("no time", good(), json!({ "target": "y", "time": "when" }), Refused(&["no column 'when'"])),
        case(
            "time of one class",
            rows("x,t,y", 60, |row| format!("{},{row},{}", row % 7, if row < 40 { row % 2 } else { 1 })),
            json!({ "target": "y", "time": "t" }),
            Refused(&["hold one class only", "leave --time or --group out"]),
        ),
        case(
            "two groups",
            rows("x,g,y", 60, |row| format!("{},{},{}", row % 7, row % 2, row % 3)),
            json!({ "target": "y", "group": "g" }),
            Refused(&["has 2 different values", "three parts"]),
        ),
        made(
            "nested",
            "import pandas as pd\npd.DataFrame({'x': [[1]] * 40, 'y': range(40)}).to_parquet('source/data.csv')",
            y(),
            Refused(&["list", "in the column 'x'"]),
        ),
        made(
            "images without classes",
            "from PIL import Image\nfor i in range(30): Image.new('L', (8, 8), i).save(f'source/{i}.png')",
            json!({ "kind": "images" }),
            Refused(&["no directories that would be their classes"]),
        ),
        made(
            "broken images",
            "import os\nos.mkdir('source/a')\nfor i in range(30): open(f'source/a/{i}.png', 'w').write('no')",
            json!({ "kind": "images" }),
            Refused(&["is 'a' in every row"]),
        ),
        made(
            "parts of images",
            "import os\nfrom PIL import Image\nfor p in ('test', 'val'):\n  for c in 'ab':\n    os.makedirs(f'source/{p}/{c}')\n    \
             for i in range(15): Image.new('L', (8, 8), i).save(f'source/{p}/{c}/{i}.png')",
            json!({ "kind": "images" }),
            Refused(&["are test, val, which are no classes"]),
        ),
        made(
            "no images",
            "open('source/notes.txt', 'w').write('x')",
            json!({ "kind": "images" }),
            Refused(&["holds no images"]),
        ),
    ]
}

fn read() -> Vec<Case> {
    use Expected::Made;
    let y = || json!({ "target": "y" });
    let classes = || json!({ "task": "classification", "labels": ["no", "yes"], "rows": 40, "test": 8 });
    let text = || String::from_utf8(good()).unwrap();
    let colours = |file: Vec<u8>, name| {
        case(name, file, y(), Made(json!({ "labels": ["blau", "grün"], "features": ["größe"] }), &[]))
    };
    let umlauts = "größe;y\n".to_owned()
        + &(0..40)
            .map(|row| format!("{},{};{}\n", row, row % 10, ["grün", "blau"][row % 2]))
            .collect::<String>();
    vec![
        case("plain", good(), y(), Made(classes(), &[])),
        case("utf-8 with mark", [b"\xef\xbb\xbf".to_vec(), good()].concat(), y(), Made(classes(), &[])),
        case("utf-16 with mark", utf16(&good(), true), y(), Made(classes(), &["read as UTF-16"])),
        case("utf-16 without", utf16(&good(), false), y(), Made(classes(), &["read as UTF-16-LE"])),
        colours(umlauts.clone().into_bytes(), "semicolons and commas"),
        colours(latin1(&umlauts), "latin-1"),
        case("tabs", text().replace(',', "\t"), y(), Made(classes(), &["divided by tabs"])),
        case("crlf", text().replace('\n', "\r\n"), y(), Made(classes(), &[])),
        case(
            "quoted newlines",
            text().replace("w1", "\"a\nb, c\""),
            y(),
            Made(json!({ "rows": 40, "features": ["x", "word"] }), &[]),
        ),
        case(
            "row numbers",
            rows(",x,y", 40, |row| format!("{row},{},{}", row % 7, row % 2)),
            y(),
            Made(json!({ "features": ["x"] }), &["its first column has no name"]),
        ),
        case(
            "gaps in the target",
            rows("x,y", 60, |row| format!("{},{}", row % 9, ["a", "b", "NA"][row % 3])),
            y(),
            Made(json!({ "rows": 60, "labels": ["a", "b"] }), &["20 of 60 rows are left out"]),
        ),
        case(
            "empty column",
            rows("x,void,y", 40, |row| format!("{row},,{}", row % 2)),
            y(),
            Made(json!({ "features": ["x"] }), &["'void' is left out: it is empty"]),
        ),
        case(
            "names of rows",
            rows("who,x,y", 90, |row| format!("name{row},{},{}", row % 9, row % 2)),
            y(),
            Made(
                json!({ "features": ["x"] }),
                &["'who' is left out: it holds a different word in every row"],
            ),
        ),
        case(
            "stray words",
            rows("x,z,y", 100, |row| {
                format!(
                    "{},{},{}",
                    if row == 5 { "n/k".to_owned() } else { row.to_string() },
                    row % 5,
                    row % 2
                )
            }),
            y(),
            Made(json!({ "features": ["x", "z"] }), &["words among its numbers ('n/k')"]),
        ),
        case(
            "thousands",
            rows("x,y", 60, |row| format!("\"{},{row:03}\",{}", 1 + row % 9, row % 2)),
            y(),
            Made(json!({ "features": ["x"] }), &["numbers: 'x'"]),
        ),
        case(
            "a target with thousands",
            rows("x,y", 60, |row| {
                if row % 2 == 0 { format!("{row},{}", 100 + row) } else { format!("{row},\"1,{row:03}\"") }
            }),
            y(),
            Made(json!({ "task": "regression", "why": "because 'y' holds 60 different whole numbers" }), &[]),
        ),
        case(
            "points for thousands, and placeholders",
            rows("x;y", 64, |row| {
                let x = ["1.234,56", "987,10", "k.A.", "-", "5,5", "12.000,00", "7", "8,25"][row % 8];
                format!("{x};{}", row % 2)
            }),
            y(),
            Made(json!({ "features": ["x"] }), &["words among its numbers ('-', 'k.A.')", "numbers: 'x'"]),
        ),
        case(
            "days first",
            rows("day,x,y", 90, |row| {
                format!("{:02}.{:02}.2024,{},{}", 1 + row % 30, 1 + row / 30, row % 7, row % 2)
            }),
            y(),
            Made(json!({ "features": ["day", "x"] }), &["dates: 'day'"]),
        ),
    ]
}

fn looked_for() -> Vec<Case> {
    use Expected::Made;
    vec![case(
        "the rarer is looked for",
        rows("x,y", 60, |row| format!("{row},{}", if row % 10 == 0 { "fraud" } else { "legit" })),
        json!({ "target": "y", "metric": "f1" }),
        Made(json!({ "labels": ["legit", "fraud"] }), &["f1 is that of the class 'fraud'"]),
    )]
}

fn decided() -> Vec<Case> {
    use Expected::Made;
    let y = || json!({ "target": "y" });
    vec![
        case(
            "few integers",
            rows("x,y", 60, |row| format!("{row},{}", 3 + row % 4)),
            y(),
            Made(
                json!({ "task": "classification", "labels": ["3", "4", "5", "6"], "metric": "log_loss" }),
                &[],
            ),
        ),
        case(
            "few integers as numbers",
            rows("x,y", 60, |row| format!("{row},{}", 3 + row % 4)),
            json!({ "target": "y", "task": "regression" }),
            Made(json!({ "task": "regression", "metric": "rmse", "why": "because --task says so" }), &[]),
        ),
        case(
            "metric decides",
            rows("x,y", 60, |row| format!("{row},{}", 3 + row % 4)),
            json!({ "target": "y", "metric": "mae" }),
            Made(json!({ "task": "regression", "metric": "mae", "goal": "minimize" }), &[]),
        ),
        case(
            "many integers",
            rows("x,y", 60, |row| format!("{row},{row}")),
            y(),
            Made(json!({ "task": "regression", "why": "because 'y' holds 60 different whole numbers" }), &[]),
        ),
        case(
            "one number in two ways",
            rows("x,y", 60, |row| format!("{row},{}", ["1", "1.0", "2"][row % 3])),
            json!({ "target": "y", "task": "classification" }),
            Made(json!({ "labels": ["1", "2"] }), &[]),
        ),
        case(
            "truth",
            rows("x,y", 60, |row| format!("{row},{}", ["TRUE", "false"][row % 2])),
            y(),
            Made(json!({ "labels": ["False", "True"], "written": ["false", "TRUE"] }), &[]),
        ),
        case(
            "by time",
            rows("day,x,y", 100, |row| format!("{:02}.03.2024,{},{row}.5", 1 + row % 30, row % 7)),
            json!({ "target": "y", "time": "day" }),
            Made(json!({ "split": "by time: the last rows by 'day' are hidden" }), &[]),
        ),
        case(
            "by group",
            rows("g,x,y", 100, |row| format!("g{},{},{row}.5", row % 10, row % 7)),
            json!({ "target": "y", "group": "g" }),
            Made(json!({ "features": ["x"], "test": 20, "validation": 10 }), &["rows are split by it"]),
        ),
        case(
            "many rows",
            rows("x,y", 5000, |row| format!("{row},{}.5", row * 7 % 5000)),
            json!({ "target": "y", "max_rows": 1000 }),
            Made(
                json!({ "rows": 5000, "train": 1000, "test": 1000 }),
                &["1,000 of 3,500 rows", "--max-rows"],
            ),
        ),
        made(
            "a million rows",
            "with open('source/data.csv', 'w') as f:\n  f.write('x,y\\n')\n  \
             for i in range(1000): f.write(''.join(f'{i},{i * 7 % 5000}.5\\n' for i in range(1000 * i, 1000 * i + 1000)))",
            json!({ "target": "y", "max_rows": 1000 }),
            Made(json!({ "rows": 1_000_000, "train": 1000 }), &["--max-rows"]),
        ),
        made(
            "packed",
            "import gzip\ngzip.open('source/data.csv', 'wt').write('x,y\\n' + ''.join(f'{i},{i % 2}\\n' for i in range(40)))",
            y(),
            Made(json!({ "labels": ["0", "1"] }), &[]),
        ),
        made(
            "parquet",
            "import pandas as pd\npd.DataFrame({'when': pd.date_range('2024-01-01', periods=40), 'is': [True, False] * 20, \
             'c': pd.Categorical(['a', 'b'] * 20), 'y': range(40)}).to_parquet('source/data.csv')",
            y(),
            Made(json!({ "task": "regression", "features": ["when", "is", "c"] }), &[]),
        ),
    ]
}

/// A number that looks random, by its row.
fn random(row: usize, seed: usize) -> usize {
    let mixed = ((row << 8) + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) % 10_007
}

/// Columns that tell the target by themselves.
fn telling() -> Vec<Case> {
    use Expected::Made;
    let told = |column: &str| json!({ "beware": [format!("the column '{column}' tells 'y' by itself: where it is not known before 'y' is, leave it out (--drop {column})")] });
    let y = || json!({ "target": "y" });
    vec![
        case(
            "a word tells the class",
            rows("x,outcome,y", 400, |row| {
                let paid = random(row, 1).is_multiple_of(3);
                format!(
                    "{},{},{}",
                    random(row, 2),
                    ["repaid", "written off"][usize::from(paid)],
                    usize::from(paid)
                )
            }),
            y(),
            Made(told("outcome"), &[]),
        ),
        case(
            "a number tells the class",
            rows("x,days_late,y", 400, |row| {
                let late = random(row, 1).is_multiple_of(3);
                let days = if late { 1 + random(row, 3) % 90 } else { 0 };
                format!("{},{days},{}", random(row, 2), ["paid", "late"][usize::from(late)])
            }),
            y(),
            Made(told("days_late"), &[]),
        ),
        case(
            "the target in another unit",
            rows("x,cents,y", 400, |row| {
                format!(
                    "{},{},{}.{:02}",
                    random(row, 2),
                    random(row, 1),
                    random(row, 1) / 100,
                    random(row, 1) % 100
                )
            }),
            y(),
            Made(told("cents"), &[]),
        ),
        case(
            "a date tells the class",
            rows("x,closed,y", 400, |row| {
                let open = random(row, 1).is_multiple_of(2);
                let closed = if open { String::new() } else { format!("2024-03-{:02}", 1 + row % 28) };
                format!("{},{closed},{}", random(row, 2), ["closed", "open"][usize::from(open)])
            }),
            y(),
            Made(told("closed"), &["dates: 'closed'"]),
        ),
        case(
            "another unit, with gaps",
            rows("x,cents,y", 400, |row| {
                let square = random(row, 1) * random(row, 1);
                let cents = if row % 9 == 0 { String::new() } else { square.to_string() };
                format!("{},{cents},{}.{:02}", random(row, 2), square / 100, square % 100)
            }),
            y(),
            Made(told("cents"), &[]),
        ),
    ]
}

/// Columns that only seem to tell the target by themselves.
fn hardly_telling() -> Vec<Case> {
    use Expected::Made;
    let y = || json!({ "target": "y" });
    let no = || json!({ "beware": [] });
    vec![
        case(
            "a good column tells nearly all",
            rows("x,y", 400, |row| {
                format!(
                    "{},{}",
                    random(row, 1) % 100,
                    usize::from(random(row, 1) % 100 + random(row, 2) % 12 > 55)
                )
            }),
            y(),
            Made(no(), &[]),
        ),
        case(
            "one class is rare",
            rows("x,y", 600, |row| {
                format!("{},{}", random(row, 1), if row % 100 == 0 { "yes" } else { "no" })
            }),
            y(),
            Made(no(), &[]),
        ),
        case(
            "what goes on with time",
            rows("day,x,y", 300, |row| {
                format!(
                    "2024-{:02}-{:02},{},{}",
                    1 + row / 28,
                    1 + row % 28,
                    random(row, 1),
                    row * 100 + random(row, 2) % 10
                )
            }),
            json!({ "target": "y", "time": "day" }),
            Made(no(), &[]),
        ),
        case(
            "a class of two rows, and numbers that are no numbers to a tree",
            rows("x,z,y", 400, |row| {
                let x = ["1e39", "-inf", "inf", ""]
                    .get(row)
                    .map_or_else(|| random(row, 1).to_string(), |x| (*x).to_owned());
                format!("{x},{},{}", random(row, 2), if row % 200 == 7 { "yes" } else { "no" })
            }),
            y(),
            Made(no(), &[]),
        ),
        case(
            "a column that tells the group",
            rows("birth,x,patient,y", 400, |row| {
                let patient = row / 10;
                format!(
                    "19{:02}-03-04,{},p{patient},{}",
                    30 + patient,
                    random(row, 1),
                    ["ill", "well"][random(patient, 3) % 2]
                )
            }),
            json!({ "target": "y", "group": "patient" }),
            Made(no(), &[]),
        ),
        case(
            "one group to learn from",
            rows("x,site,y", 150, |row| format!("{},s{},{}", random(row, 1), row / 50, random(row, 1) * 3)),
            json!({ "target": "y", "group": "site" }),
            Made(no(), &["left out: rows are split by it"]),
        ),
        case(
            "few rows say nothing",
            rows("x,y", 40, |row| format!("{row},{}", row % 2)),
            y(),
            Made(no(), &[]),
        ),
    ]
}

fn of_images() -> Vec<Case> {
    use Expected::Made;
    vec![
        made(
            "images",
            "import os\nfrom PIL import Image\nfor c in 'ab':\n  os.mkdir(f'source/{c}')\n  for i in range(30):\n    \
             Image.new('RGB', (90, 60), (200 * (c == 'a'), 8 * i, 9)).save(f'source/{c}/{i}.jpg')\n\
             open('source/a/broken.png', 'w').write('no')\n\
             open('source/a/again.jpg', 'wb').write(open('source/a/1.jpg', 'rb').read())\n\
             for i in range(3): open(f'source/b/{i}.HEIC', 'w').write('no')",
            json!({ "kind": "images" }),
            Made(
                json!({ "labels": ["a", "b"], "test": 12, "target": "class" }),
                &[
                    "1 files cannot be read as images",
                    "1 images are the same as another",
                    "left out: 3 of .heic",
                ],
            ),
        ),
        made(
            "images that somebody divided",
            "import os\nfrom PIL import Image\nfor p in ('train', 'test'):\n  for c in 'ab':\n    os.makedirs(f'source/all/{p}/{c}')\n    \
             for i in range(30): Image.new('L', (8, 8), i + 99 * (c == 'a') + 30 * (p == 'test')).save(f'source/all/{p}/{c}/{i}.tiff')",
            json!({ "kind": "images" }),
            Made(
                json!({ "labels": ["a", "b"], "rows": 60, "test": 12 }),
                &["train/ is learnt from and divided anew; test/ is left aside"],
            ),
        ),
        made(
            "images with a table",
            "from PIL import Image\nfor i in range(40): Image.new('L', (8, 8), i).save(f'source/{i}.png')\n\
             open('source/labels.csv', 'w').write('file,kind\\n' + ''.join(f'{i}.png,{\"odd even\".split()[i % 2]}\\n' for i in range(41)))",
            json!({ "kind": "images", "target": "kind" }),
            Made(json!({ "labels": ["even", "odd"], "target": "kind" }), &["1 of 41 rows of labels.csv"]),
        ),
    ]
}

#[tokio::test]
async fn data_is_read_or_refused_in_words_that_help() {
    let lab = Lab::new().await;
    let limits = Limits { memory_bytes: 2 << 30, ..Limits::default() };
    let spec = SandboxSpec { image: image("prepare").await, limits, ..lab.spec(User::Agent) };
    let mut sandbox = lab.backend.create(&spec).await.unwrap();
    let root = lab.directory.path().join("cases");
    let tables = [
        refused_layouts,
        refused_targets,
        refused_formats,
        refused_splits_and_images,
        read,
        looked_for,
        decided,
        telling,
        hardly_telling,
        of_images,
    ];
    let cases: Vec<Case> = tables.into_iter().flat_map(|table| table()).collect();
    for case in &cases {
        let directory = root.join("cases").join(case.name);
        std::fs::create_dir_all(&directory).unwrap();
        let mut request = json!({
            "kind": "table", "file": "data.csv", "target": null, "task": null, "metric": null, "time": null,
            "group": null, "drop": [], "seed": 0, "max_rows": 500_000,
        });
        for (key, value) in case.asked.as_object().unwrap() {
            request[key] = value.clone();
        }
        std::fs::write(directory.join("request.json"), request.to_string()).unwrap();
        if !case.file.is_empty() {
            std::fs::write(directory.join(case.file), &case.content).unwrap();
        }
        if !case.make.is_empty() {
            std::fs::write(directory.join("make.py"), case.make).unwrap();
        }
    }
    for (name, content) in FILES {
        std::fs::write(root.join(name), content).unwrap();
    }
    std::fs::write(root.join("driver.py"), DRIVER).unwrap();
    sandbox.put("/workspace", FileSource::Directory(root)).await.unwrap();
    let mut command = Command::new("PYTHONPATH=/opt/mlgym/lib python driver.py", Duration::from_secs(600));
    command.capture = CaptureLimits { head: 4 << 20, tail: 1 << 20, spool: 0 };
    let output = sandbox.shell(&command, &CancellationToken::new()).await.unwrap();
    sandbox.destroy().await.unwrap();
    assert_eq!(output.end, CommandEnd::Exited(0), "{}", output.stderr.to_text());
    let text = output.stdout.to_text();
    let outcomes: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let wrong: Vec<String> = cases.iter().filter_map(|case| mismatch(case, &outcomes[case.name])).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Says how an outcome differs from what is expected.
fn mismatch(case: &Case, outcome: &Value) -> Option<String> {
    let complain = |text: &str| Some(format!("{}: {text}\n  {outcome}", case.name));
    if outcome["code"] != 0 {
        return complain(outcome["trace"].as_str().unwrap_or("it died"));
    }
    match &case.expected {
        Expected::Refused(words) => {
            let Some(said) = outcome["refusal"].as_str() else { return complain("it was not refused") };
            // One sentence, for whoever has the file.
            if said.trim().lines().count() != 1 || said.contains("Traceback") {
                return complain("its refusal is no sentence");
            }
            words
                .iter()
                .find(|word| !said.contains(**word))
                .and_then(|word| complain(&format!("it does not say {word:?}")))
        }
        Expected::Made(facts, words) => {
            if outcome["refusal"].is_string() {
                return complain("it was refused");
            }
            let differs =
                facts.as_object().unwrap().iter().find(|(key, value)| outcome["facts"][*key] != **value);
            if let Some((key, value)) = differs {
                return complain(&format!("its {key} is not {value}"));
            }
            let said = outcome["facts"]["said"].to_string();
            words
                .iter()
                .find(|word| !said.contains(**word))
                .and_then(|word| complain(&format!("it does not say {word:?}")))
        }
    }
}

fn request(data: &Path, target: &str) -> OwnRequest {
    OwnRequest {
        table: None,
        data: data.to_owned(),
        target: Some(target.to_owned()),
        task: None,
        metric: None,
        time: None,
        group: None,
        drop: Vec::new(),
        seed: 0,
        max_rows: 1000,
        cpus: 1.0,
        memory_mb: 2048,
    }
}

async fn workshop(lab: &Lab) -> Workshop {
    Workshop {
        root: lab.directory.path().join("own"),
        backend: lab.backend.clone(),
        image: image("prepare").await,
        labels: lab.labels(),
        cancel: CancellationToken::new(),
    }
}

#[tokio::test]
async fn a_task_is_made_once_and_nothing_half_made_is_left() {
    let lab = Lab::new().await;
    let workshop = workshop(&lab).await;
    let data = lab.directory.path().join("Some Data.csv");
    std::fs::write(&data, good()).unwrap();
    let refused = workshop.make(&request(&data, "wy")).await.unwrap_err();
    assert!(matches!(refused, OwnError::Refused(_)), "{refused}");
    assert_eq!(std::fs::read_dir(&workshop.root).unwrap().count(), 0, "something was left");
    let OwnTask { task, facts, is_new } = workshop.make(&request(&data, "y")).await.unwrap();
    assert!(is_new);
    assert_eq!((task.name.as_str(), facts.task), ("own/some-data", TargetKind::Classification));
    assert!(!workshop.make(&request(&data, "y")).await.unwrap().is_new);
    assert!(workshop.make(&request(&data, "word")).await.unwrap().is_new, "another target is another task");
    // Nothing of what is hidden is where an agent could see it.
    let public = task.dir.join("data/public");
    let test = std::fs::read_to_string(public.join("test.csv")).unwrap();
    assert!(test.starts_with("id,x,word\n") && test.lines().count() == 13, "{test}");
    let train = std::fs::read_to_string(public.join("train.csv")).unwrap();
    assert_eq!(train.lines().count(), 29);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(task.dir.join("data/private")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(lab.containers().await, 0, "containers were left");
}

#[tokio::test]
async fn a_repository_gives_its_table_and_what_its_readme_says() {
    let lab = Lab::new().await;
    let workshop = workshop(&lab).await;
    let root = lab.directory.path().join("Tide Tables");
    std::fs::create_dir_all(root.join("sets")).unwrap();
    std::fs::write(root.join("sets/train.csv"), good()).unwrap();
    std::fs::write(root.join("sets/test.csv"), "x,word\n1,a\n").unwrap();
    std::fs::write(root.join("README.md"), "# Tides\n\n`y` is high or low.\n").unwrap();
    std::fs::write(root.join("fit.py"), "print(1)\n").unwrap();
    let OwnTask { task, facts, is_new } = workshop.make(&request(&root, "y")).await.unwrap();
    assert!(is_new);
    assert_eq!((task.name.as_str(), facts.file.as_str()), ("own/tide-tables", "train.csv"));
    assert!(facts.said[0].starts_with("sets/train.csv of the repository is learnt from"), "{:?}", facts.said);
    assert!(task.instruction.contains("> `y` is high or low."), "{}", task.instruction);
    // Found again with what was said, and another one once the README says something else.
    let again = workshop.make(&request(&root, "y")).await.unwrap();
    assert!(!again.is_new);
    assert_eq!(again.facts, facts);
    std::fs::write(root.join("README.md"), "# Tides\n").unwrap();
    assert!(workshop.make(&request(&root, "y")).await.unwrap().is_new);
}
