//! No arguments make a control code crash, fail with a code that is not documented, or write where it may not:
//! random ones, and those that fuzzing found worth keeping.

mod sys;

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_arguments_are_too_strange(bytes in vec(any::<u8>(), 0..512)) {
        sys::call(&bytes);
    }
}

#[test]
fn what_fuzzing_found_is_not_too_strange_either() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/arguments");
    let inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(inputs.len() >= 10, "where has the corpus gone?");
    for input in inputs {
        sys::call(&fs::read(input).unwrap());
    }
}
