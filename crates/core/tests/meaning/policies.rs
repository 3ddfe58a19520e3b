//! What does not make a policy, and what does not fit into tables.

use waylay_core::{
    Action, FilterId, Limit, LimitError, MAX_FILTERS, MAX_SUBLAYERS, OrderError, Policy, PolicyError,
    ServiceId, SublayerId, Tables,
};

use crate::fixtures::*;

#[test]
fn ids_are_unique() {
    let twice = Policy::new(vec![service(1, OPEN), service(1, OPEN)], vec![], vec![]);
    assert_eq!(twice, Err(PolicyError::DuplicateService { service: ServiceId(1) }));
    let twice = Policy::new(vec![], vec![sublayer(1, 0), sublayer(1, 1)], vec![]);
    assert_eq!(twice, Err(PolicyError::DuplicateSublayer { sublayer: SublayerId(1) }));
    let filters = vec![redirect(5, 1), auth(5, 1, 0, Action::PERMIT)];
    let twice = Policy::new(vec![service(1, OPEN)], vec![sublayer(1, 0)], filters);
    assert_eq!(twice, Err(PolicyError::DuplicateFilter { filter: FilterId(5) }));
}

#[test]
fn filters_name_what_exists() {
    let unknown = Policy::new(vec![service(1, OPEN)], vec![], vec![redirect(5, 2)]);
    assert_eq!(unknown, Err(PolicyError::UnknownService { filter: FilterId(5), service: ServiceId(2) }));
    let unknown = Policy::new(vec![], vec![sublayer(1, 0)], vec![auth(5, 2, 0, Action::BLOCK)]);
    assert_eq!(unknown, Err(PolicyError::UnknownSublayer { filter: FilterId(5), sublayer: SublayerId(2) }));
}

#[test]
fn a_cycle_of_services_is_no_policy() {
    let mut one = service(1, OPEN);
    one.before = vec!["s1".into()];
    let names = vec!["s1".into(), "s1".into()];
    assert_eq!(Policy::new(vec![one], vec![], vec![]), Err(PolicyError::Order(OrderError::Cycle { names })));
}

#[test]
fn sixty_four_services_fit_and_no_more() {
    let services = |count| (1..=count).map(|id| service(id, OPEN)).collect::<Vec<_>>();
    let policy = Policy::new(services(64), vec![], vec![]).unwrap();
    let tables = Tables::compile(&policy).unwrap();
    assert_eq!(tables.services().last().unwrap().prefix_mask, u64::MAX);
    let error = Policy::new(services(65), vec![], vec![]).unwrap_err();
    assert_eq!(error, PolicyError::Limit(LimitError { limit: Limit::Services, need: 65, allowed: 64 }));
    assert_eq!(error.to_string(), "at most 64 services, not 65");
}

#[test]
fn so_many_filters_fit_into_tables_and_no_more() {
    let with = |count| policy(vec![service(1, OPEN)], vec![], (0..count).map(|id| redirect(id, 1)).collect());
    let most = MAX_FILTERS as u32;
    assert_eq!(Tables::compile(&with(most)).unwrap().redirect_filters().len(), MAX_FILTERS);
    let error = LimitError { limit: Limit::Filters, need: MAX_FILTERS + 1, allowed: MAX_FILTERS };
    assert_eq!(Tables::compile(&with(most + 1)), Err(error));
}

#[test]
fn sixteen_sublayers_have_filters_and_no_more() {
    let with = |count| {
        let sublayers = (1..=count).map(|id| sublayer(id, 0)).collect();
        let filters = (1..=count).map(|id| auth(id, id, 0, Action::PERMIT)).collect();
        Tables::compile(&policy(vec![], sublayers, filters))
    };
    assert_eq!(with(16).unwrap().auth_filters().len(), 16);
    assert_eq!(with(17), Err(LimitError { limit: Limit::Sublayers, need: 17, allowed: MAX_SUBLAYERS }));
}
