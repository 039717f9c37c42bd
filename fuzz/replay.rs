//! Replays the corpus of a fuzz target on the stable compiler. The tests of our crates include this
//! file.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::TestRunner,
};

/// Checks that an input breaks no rule, and returns what became of it in a word.
pub(crate) type Check = fn(&[u8]) -> &'static str;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");
/// Longer inputs are cut short in fewer places.
const CUTS: usize = 512;

/// Makes a test for each corpus, with what the module of its name says.
macro_rules! corpora {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay::replay(stringify!($target), &$target::OUTCOMES, $target::check);
        })*
    };
}
pub(crate) use corpora;

/// Checks the inputs of a corpus as they are, cut short, and changed at random.
///
/// The name of each input begins with its outcome, and each outcome has an input. `PROPTEST_CASES`
/// is the number of random changes.
pub(crate) fn replay(target: &str, outcomes: &[&'static str], check: Check) {
    let corpus = read(&Path::new(CORPUS).join(target)).expect("there is a corpus");
    let mut seen = BTreeSet::new();
    for (name, input) in &corpus {
        let outcome = check(input);
        assert_eq!(name.split("__").next(), Some(outcome), "{target}/{name}");
        seen.insert(outcome);
    }
    assert_eq!(seen, outcomes.iter().copied().collect(), "there is an input for each outcome");

    for (_, input) in &corpus {
        let step = input.len() / CUTS + 1;
        for end in (0..input.len()).step_by(step) {
            check(&input[..end]);
        }
    }

    let inputs: Vec<_> = corpus.into_iter().map(|(_, input)| input).collect();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let changed = TestRunner::new(config).run(&changed(inputs), |input| {
        check(&input.0);
        Ok(())
    });
    if let Err(broken) = changed {
        panic!("{target}: {broken}");
    }
}

fn read(folder: &Path) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let read =
        |path: &Path| Ok((path.file_name().unwrap_or_default().display().to_string(), fs::read(path)?));
    fs::read_dir(folder)?.map(|entry| read(&entry?.path())).collect()
}

/// An input that shows itself as a text that Rust can read.
struct Input(Vec<u8>);

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

#[derive(Clone, Debug)]
enum Edit {
    /// Removes at most this many bytes.
    Cut(usize),
    /// Inserts these bytes.
    Put(Vec<u8>),
    /// Inserts a part of another input, of at most this many bytes.
    Splice(Vec<u8>, Index, usize),
    /// Repeats at most this many bytes.
    Repeat(usize),
}

fn changed(inputs: Vec<Vec<u8>>) -> impl Strategy<Value = Input> {
    let length = || 1..12_usize;
    let octet = prop_oneof![
        any::<u8>(),
        select(b"%;/\\.?#:@=,&\"'{}[]<>+-_~ \t\r\n\0".to_vec()),
        select(b"aAeEkKsSzZ0192".to_vec()),
    ];
    let edit = prop_oneof![
        length().prop_map(Edit::Cut),
        vec(octet, 1..4).prop_map(Edit::Put),
        (select(inputs.clone()), any::<Index>(), length())
            .prop_map(|(other, at, length)| Edit::Splice(other, at, length)),
        length().prop_map(Edit::Repeat),
    ];
    (select(inputs), vec((any::<Index>(), edit), 0..8)).prop_map(|(mut input, edits)| {
        for (at, edit) in edits {
            let at = at.index(input.len() + 1);
            let part = |bytes: &[u8], at: usize, length: usize| {
                bytes[at..].iter().copied().take(length).collect::<Vec<u8>>()
            };
            let put = match edit {
                Edit::Cut(length) => {
                    input.drain(at..(at + length).min(input.len()));
                    continue;
                }
                Edit::Put(bytes) => bytes,
                Edit::Splice(other, from, length) => part(&other, from.index(other.len() + 1), length),
                Edit::Repeat(length) => part(&input, at, length),
            };
            input.splice(at..at, put);
        }
        Input(input)
    })
}
