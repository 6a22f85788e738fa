//! A plain mutation runner for stable Rust without a C++ compiler. It is NOT coverage-guided: it
//! changes the inputs of the corpus blindly and looks for panics and endless work. It finds shallow
//! mistakes; use the libFuzzer targets (`run.sh`) for more.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fuzz::TARGETS;

/// Inputs never grow beyond this.
const BYTES_MAX: usize = 16 << 10;
/// One input that takes longer is reported as well.
const SLOW: Duration = Duration::from_millis(500);

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

const TOKENS: [&[u8]; 24] = [
    b"\r\n", b"\r\n\r\n", b";", b",", b":", b"=", b"<", b">", b"\"", b"%00", b"%", b"sip:", b"[::1]",
    b"{", b"}", b"{+x}", b"m=audio 1 RTP/AVP 0\r\n", b"a=", b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff",
    b"Content-Length: 99\r\n", b"<Dial>", b"&amp;",
];

fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        match random.below(9) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.next() as u8,
            2 if at < input.len() => {
                let end = (at + 1 + random.below(16)).min(input.len());
                input.drain(at..end);
            }
            3 => {
                let token = TOKENS[random.below(TOKENS.len())];
                input.splice(at..at, token.iter().copied());
            }
            4 if at < input.len() => {
                let end = (at + 1 + random.below(64)).min(input.len());
                let piece = input[at..end].to_vec();
                let times = 1 + random.below(4);
                for _ in 0..times {
                    input.splice(at..at, piece.iter().copied());
                }
            }
            5 => input.truncate(at),
            6 if !other.is_empty() => {
                let from = random.below(other.len());
                let end = (from + 1 + random.below(128)).min(other.len());
                input.splice(at..at, other[from..end].iter().copied());
            }
            7 if at < input.len() => {
                let odd = [0u8, 1, 0x7f, 0x80, 0xff];
                input[at] = odd[random.below(odd.len())];
            }
            _ => input.insert(at, random.next() as u8),
        }
    }
    input.truncate(BYTES_MAX);
}

struct Arguments {
    seconds: u64,
    seed: u64,
    only: Vec<String>,
}

fn arguments() -> Result<Arguments, String> {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let usage = format!("fuzz-lite [--seconds N] [--seed N] [TARGET...]; targets: {}", names.join(" "));
    let mut parsed = Arguments { seconds: 10, seed: 1, only: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().unwrap_or_default();
            value.parse().map_err(|_| format!("{word} {value}: allowed is a number\n{usage}"))
        };
        match word.as_str() {
            "--seconds" => parsed.seconds = number()?,
            "--seed" => parsed.seed = number()?,
            "--help" | "-h" => return Err(usage),
            name if names.contains(&name) => parsed.only.push(name.to_owned()),
            other => return Err(format!("{other}: unknown\n{usage}")),
        }
    }
    Ok(parsed)
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

fn keep(name: &str, input: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(name);
    let _ = std::fs::create_dir_all(&folder);
    let sum = input.iter().fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = folder.join(format!("crash-{sum:016x}"));
    let _ = std::fs::write(&path, input);
    path
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    println!("fuzz-lite: blind mutation of the corpus, not coverage-guided");
    std::panic::set_hook(Box::new(|info| {
        LAST_PANIC.with(|last| *last.borrow_mut() = info.to_string());
    }));
    let mut failed = 0;
    for (name, target) in TARGETS {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        let corpus = corpus(name);
        let mut random = Random(arguments.seed);
        let (end, mut runs, mut seen) = (Instant::now() + Duration::from_secs(arguments.seconds), 0u64, Vec::new());
        while Instant::now() < end {
            let mut input = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
            let other = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
            mutate(&mut input, &other, &mut random);
            runs += 1;
            let began = Instant::now();
            let broken = catch_unwind(AssertUnwindSafe(|| target(&input))).is_err();
            let why = if broken {
                LAST_PANIC.with(|last| last.borrow().clone())
            } else if began.elapsed() > SLOW {
                format!("took {:?}", began.elapsed())
            } else {
                continue;
            };
            // One report per place in the source.
            let place = why.lines().next().unwrap_or_default().to_owned();
            if !seen.contains(&place) {
                println!("{name}: {why}\n  kept in {}", keep(name, &input).display());
                seen.push(place);
            }
        }
        println!("{name:10} {runs:9} inputs, {} findings", seen.len());
        failed += seen.len();
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
