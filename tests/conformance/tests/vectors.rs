//! The vectors themselves, and the subject that every platform has.

use std::collections::BTreeMap;

use waylay_conformance::{
    Answer, Code, Deviation, Need, Outcome, Subject, memory::MemorySubject, run, run_all, vectors,
};

#[test]
fn there_are_seventeen_and_each_has_a_source() {
    let vectors = vectors().unwrap();
    let ids: Vec<String> = vectors.iter().map(|vector| vector.id.clone()).collect();
    assert_eq!(ids, (1..=17).map(|number| format!("T{number}")).collect::<Vec<_>>());
    for vector in &vectors {
        assert!(vector.source.starts_with("https://learn.microsoft.com/"), "{}", vector.id);
        assert!(!vector.steps.is_empty() && vector.says.ends_with('.'), "{}", vector.id);
    }
}

/// Where waylay differs from Windows, on purpose, there is no other place than this.
#[test]
fn waylay_deviates_in_one_step() {
    let vectors = vectors().unwrap();
    let deviations: Vec<(&str, &Deviation)> = vectors
        .iter()
        .flat_map(|vector| vector.steps.iter().map(|step| (vector.id.as_str(), step.on_waylay.as_ref())))
        .filter_map(|(id, deviation)| Some((id, deviation?)))
        .collect();
    let [("T3", deviation)] = deviations[..] else { panic!("{deviations:?}") };
    assert!(deviation.because.contains("past it"), "{deviation:?}");
}

#[test]
fn the_engine_in_memory_conforms() {
    let not_applicable = run_all(&vectors().unwrap(), &mut MemorySubject::default());
    let expected = BTreeMap::from(
        [
            ("T1", Need::UnredirectedSockets),
            ("T6", Need::RecordsAsBytes),
            ("T7", Need::Buffers),
            ("T10", Need::RedirectsWithoutContext),
            ("T11", Need::Datagrams),
            ("T14", Need::Overlapped),
            ("T15", Need::RightsAtTheRedirectLayer),
            ("T17", Need::Vetoes),
        ]
        .map(|(id, need)| (id.to_owned(), MemorySubject::default().lacks(need).unwrap())),
    );
    assert_eq!(not_applicable, expected);
}

/// A runner that nothing can fail would prove nothing.
#[test]
fn another_answer_is_a_failure_at_its_step() {
    let mut vector = vectors().unwrap().swap_remove(1);
    let index = vector.steps.iter().position(|step| step.expect == Answer::Code(Code::OK)).unwrap();
    vector.steps[index].expect = Answer::Code(Code::INVALID);
    let outcome = run(&vector, &mut MemorySubject::default());
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!((failure.number, failure.got.clone()), (index + 1, Answer::Code(Code::OK)));
    assert!(failure.to_string().contains("Code(WSAEINVAL) was expected"), "{failure}");
}
