//! The programs' SipHash is the published one.

use std::hash::Hasher;

use proptest::prelude::*;
use siphasher::sip128::{Hasher128, SipHasher24};
use waylay_differential::siphash128;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn equals_an_independent_implementation(k0: u64, k1: u64, words: [u64; 4]) {
        let mut hasher = SipHasher24::new_with_keys(k0, k1);
        for word in words {
            hasher.write(&word.to_le_bytes());
        }
        let expected = hasher.finish128();
        prop_assert_eq!(siphash128(k0, k1, &words), [expected.h1, expected.h2]);
    }
}
