//! Every rule of `decide`, in the order in which it judges.

use waylay_core::{
    Action, Availability, Chain, Change, Conditions, Confinement, Errno, Existing, ExistingVerdict, Filter,
    FilterId, FlagConditions, ForeignNamespace, Hop, HostName, HostPattern, ListenerOwner, MAX_HOPS,
    Namespace, Obstacle, OneOf, Policy, PolicyError, Records, Refusal, Resource, Room, Route, Sandboxes,
    ServiceId, ServiceSet, SocketOwner, Sphere, Tables, TraceStep, Unredirectable, Verdict, World, decide,
    decide_existing,
};

use crate::fixtures::*;

const S1: ServiceId = ServiceId(1);
const S2: ServiceId = ServiceId(2);

/// Service 1 for everything, and a block for everything.
fn blocked() -> Policy {
    policy(
        vec![service(1, CLOSED)],
        vec![sublayer(1, 0)],
        vec![redirect(101, 1), auth(7, 1, 0, Action::BLOCK)],
    )
}

fn verdict(policy: &Policy, world: &World) -> Verdict {
    decide(policy, &leg(app()), &Records::None, world).verdict
}

fn chosen(verdict: &Verdict) -> Option<u32> {
    match verdict {
        Verdict::Redirect { service, .. } => Some(service.0),
        Verdict::Direct | Verdict::Refuse(_) => None,
    }
}

fn chain(services: &[u32]) -> Chain {
    let hops =
        services.iter().map(|&id| Hop { service: ServiceId(id), filter: FilterId(100 + id) }).collect();
    Chain::new(hops, ServiceSet::default(), Some(app())).expect("few hops")
}

#[test]
fn kernel_sockets_are_left_alone_even_by_blocks() {
    let world =
        World { socket_owner: SocketOwner::Kernel, namespace: Namespace::Foreign(7), ..World::default() };
    let policy = blocked().with_foreign_namespace(ForeignNamespace::Block);
    assert_eq!(verdict(&policy, &world), Verdict::Direct);
}

#[test]
fn what_is_dialled_outside_of_the_sphere_is_left_alone_even_by_blocks() {
    let listener = Some(ListenerOwner::OwnInstance(S1));
    let world =
        World { sphere: Sphere::Outside, namespace: Namespace::Foreign(7), listener, ..World::default() };
    let policy = blocked().with_foreign_namespace(ForeignNamespace::Block);
    assert_eq!(verdict(&policy, &world), Verdict::Direct);
    let policy = services_for_all(&[CLOSED]);
    assert_eq!(verdict(&policy, &World { sphere: Sphere::Outside, ..World::default() }), Verdict::Direct);
}

#[test]
fn foreign_namespaces_get_the_policys_one_answer() {
    let world = World { namespace: Namespace::Foreign(7), ..World::default() };
    assert_eq!(verdict(&blocked(), &world), Verdict::Direct);
    let blocking = blocked().with_foreign_namespace(ForeignNamespace::Block);
    assert_eq!(verdict(&blocking, &world), Verdict::Refuse(Refusal::ForeignNamespace));
    assert_eq!(Refusal::ForeignNamespace.errno(), Errno::EACCES);
}

/// An auth filter that asks for network namespaces.
fn about(id: u32, action: Action, namespaces: OneOf<Namespace>) -> Filter {
    let conditions = Conditions { namespace: Some(namespaces), ..Conditions::default() };
    Filter { conditions, ..auth(id, 1, 0, action) }
}

#[test]
fn filters_that_ask_for_a_namespace_speak_before_the_policys_one_answer() {
    let at = |namespace| World { namespace, ..with_availability([(1, Availability::Available)]) };
    let [own, seven, eight] = [Namespace::Own, Namespace::Foreign(7), Namespace::Foreign(8)].map(at);
    let with = |filter: Filter| {
        policy(vec![service(1, CLOSED)], vec![sublayer(1, 0)], vec![redirect(101, 1), filter])
    };
    let blocked_by = |id| Verdict::Refuse(Refusal::Blocked { filter: FilterId(id), errno: Errno::EACCES });

    let policy = with(about(7, Action::BLOCK, OneOf::only(Namespace::Foreign(7))));
    assert_eq!(verdict(&policy, &seven), blocked_by(7));
    assert_eq!(verdict(&policy, &eight), Verdict::Direct);
    assert_eq!(chosen(&verdict(&policy, &own)), Some(1));

    let policy = with(about(7, Action::PERMIT, OneOf::only(Namespace::Foreign(7))));
    let policy = policy.with_foreign_namespace(ForeignNamespace::Block);
    assert_eq!(verdict(&policy, &seven), Verdict::Direct);
    assert_eq!(verdict(&policy, &eight), Verdict::Refuse(Refusal::ForeignNamespace));
    let decision = decide(&policy, &leg(app()), &Records::None, &eight);
    assert_eq!(decision.trace.steps(), [TraceStep::ForeignNamespace(ForeignNamespace::Block)]);

    let policy = with(about(7, Action::BLOCK, OneOf::none_of([Namespace::Foreign(7)])));
    assert_eq!(verdict(&policy, &seven), Verdict::Direct);
    assert_eq!([&own, &eight].map(|world| verdict(&policy, world)), [blocked_by(7), blocked_by(7)]);
}

#[test]
fn names_lead_and_block_and_never_let_pass() {
    let example = HostPattern::Below(HostName::new("ads.example").unwrap());
    let asks = |filter: Filter, host| Filter {
        conditions: Conditions { host: Some(host), ..Conditions::default() },
        ..filter
    };
    let (named, unnamed) = (OneOf::only(example.clone()), OneOf::none_of([example]));
    let with = |filter| Policy::new(vec![service(1, CLOSED)], vec![sublayer(1, 0)], vec![filter]);
    let known = |name: &str| World {
        hosts: ["b.example", name]
            .iter()
            .flat_map(|name| HostName::new(name).unwrap().patterns().collect::<Vec<_>>())
            .collect(),
        ..with_availability([(1, Availability::Available)])
    };
    let (ad, other) = (known("x.ads.example"), known("ads.example"));

    let block = with(asks(auth(7, 1, 0, Action::BLOCK), named.clone())).unwrap();
    let blocked = Verdict::Refuse(Refusal::Blocked { filter: FilterId(7), errno: Errno::EACCES });
    assert_eq!((verdict(&block, &ad), verdict(&block, &other)), (blocked, Verdict::Direct));
    let lead = with(asks(redirect(7, 1), named.clone())).unwrap();
    assert_eq!((chosen(&verdict(&lead, &ad)), chosen(&verdict(&lead, &other))), (Some(1), None));
    assert!(with(asks(auth(7, 1, 0, Action::PERMIT), unnamed.clone())).is_ok(), "less than a permit for all");

    for filter in [
        asks(auth(7, 1, 0, Action::PERMIT), named),
        asks(auth(7, 1, 0, Action::BLOCK), unnamed.clone()),
        asks(redirect(7, 1), unnamed),
    ] {
        let error = PolicyError::PassesByName { filter: FilterId(7) };
        assert_eq!(with(filter.clone()), Err(error.clone()));
        let mut policy = policy(vec![service(1, CLOSED)], vec![sublayer(1, 0)], vec![]);
        let tables = Tables::compile(&policy).unwrap();
        let change = Change::add(filter);
        assert_eq!(policy.change(&change), Err(error.clone()));
        assert_eq!(tables.change(&change), Err(error));
    }
}

#[test]
fn a_leg_from_a_sandbox_is_not_redirected_unless_the_policy_says_so() {
    let policy = services_for_all(&[CLOSED]);
    let world = |confinement| World {
        confinement,
        route: Route::Missing(Errno::ENETUNREACH),
        ..with_availability([(1, Availability::Available)])
    };
    let (free, sandboxed) = (world(Confinement::Free), world(Confinement::Sandboxed));
    let no_route = Verdict::Refuse(Refusal::NoRoute { errno: Errno::ENETUNREACH });
    assert_eq!(verdict(&policy, &free), no_route);
    assert_eq!(verdict(&policy, &sandboxed), Verdict::Direct, "the kernel has its own word for that");
    let here = World { route: Route::Exists, ..sandboxed.clone() };
    let decision = decide(&policy, &leg(app()), &Records::None, &here);
    assert_eq!(decision.verdict, Verdict::Direct);
    assert_eq!(decision.trace.steps().last(), Some(&TraceStep::SandboxStays));
    let overriding = policy.with_sandboxes(Sandboxes::Overridden);
    assert_eq!(chosen(&verdict(&overriding, &here)), Some(1));
    assert_eq!(verdict(&overriding, &sandboxed), no_route);
}

#[test]
fn out_of_a_sandbox_absence_refuses_nothing_and_blocks_still_do() {
    let sandboxed = World { confinement: Confinement::Sandboxed, ..World::default() };
    assert_eq!(verdict(&services_for_all(&[CLOSED]), &sandboxed), Verdict::Direct);
    let blocked = verdict(&blocked(), &sandboxed);
    assert!(matches!(blocked, Verdict::Refuse(Refusal::Blocked { .. })), "{blocked}");
    // Where nothing is wanted there is nothing to say.
    let nothing = policy(vec![service(1, CLOSED)], vec![], vec![]);
    let decision = decide(&nothing, &leg(app()), &Records::None, &sandboxed);
    assert!(!decision.trace.steps().contains(&TraceStep::SandboxStays));
}

/// It may be a proxy that has been led a connection: what it dials for that leaves its sandbox as little.
#[test]
fn a_service_in_a_sandbox_stays_in_it() {
    let policy = services_for_all(&[CLOSED, CLOSED]);
    let world = |confinement| World {
        confinement,
        ..with_availability([(1, Availability::Available), (2, Availability::Available)])
    };
    let dialled = leg(process_of(S1));
    let verdict = |world| decide(&policy, &dialled, &Records::None, &world).verdict;
    assert_eq!(chosen(&verdict(world(Confinement::Free))), Some(2));
    assert_eq!(verdict(world(Confinement::Sandboxed)), Verdict::Direct);
}

#[test]
fn a_listener_of_ours_is_not_dialled_past_the_engine() {
    let policy = services_for_all(&[OPEN]);
    let world = World { listener: Some(ListenerOwner::OwnInstance(S1)), ..all_available(&policy) };
    let refusal = Refusal::ListenerDialled { service: S1 };
    assert_eq!(verdict(&policy, &world), Verdict::Refuse(refusal));
    assert_eq!(refusal.errno(), Errno::ECONNREFUSED);
}

#[test]
fn another_instances_listener_is_left_to_it() {
    let world = World { listener: Some(ListenerOwner::OtherInstance), ..all_available(&blocked()) };
    assert_eq!(verdict(&blocked(), &world), Verdict::Direct);
}

#[test]
fn services_are_visited_in_their_solved_order() {
    let mut first = service(2, OPEN);
    first.before = vec!["s1".into()];
    let policy = policy(vec![service(1, OPEN), first], vec![], vec![redirect(101, 1), redirect(102, 2)]);
    assert_eq!(chosen(&verdict(&policy, &all_available(&policy))), Some(2));
}

#[test]
fn a_leg_with_records_goes_to_the_next_service_and_keeps_its_origin() {
    let policy = services_for_all(&[OPEN, OPEN]);
    let records = Records::Carried(chain(&[1]));
    let decision = decide(&policy, &leg(process_of(S1)), &records, &all_available(&policy));
    let Verdict::Redirect { service, filter, chain } = decision.verdict else { panic!("{}", decision.trace) };
    assert_eq!((service, filter), (S2, FilterId(102)));
    assert_eq!(chain.hops().iter().map(|hop| hop.service).collect::<Vec<_>>(), [S1, S2]);
    assert!(chain.excluded().contains(S1) && chain.excluded().contains(S2));
    assert_eq!(chain.origin(), Some(&app()));
}

#[test]
fn a_chain_that_has_visited_everyone_goes_to_the_destination() {
    let policy = services_for_all(&[CLOSED, CLOSED]);
    let records = Records::Carried(chain(&[1, 2]));
    let decision = decide(&policy, &leg(process_of(S2)), &records, &all_available(&policy));
    assert_eq!(decision.verdict, Verdict::Direct);
    assert_eq!(
        decision.trace.to_string(),
        "service 1: skipped, it has redirected this connection before\n\
         service 2: skipped, it redirected this connection last"
    );
}

#[test]
fn a_service_without_records_excludes_itself_and_all_earlier_ones() {
    let policy = services_for_all(&[OPEN, OPEN, OPEN]);
    let decision = decide(&policy, &leg(process_of(S2)), &Records::None, &all_available(&policy));
    let Verdict::Redirect { service, chain, .. } = decision.verdict else { panic!("{}", decision.trace) };
    assert_eq!(service, ServiceId(3));
    assert_eq!(chain.hops().len(), 1);
    assert_eq!(chain.excluded().iter().map(|id| id.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(chain.origin(), Some(&process_of(S2)));
    assert!(decision.trace.to_string().starts_with("service 2 dials without records"));
}

#[test]
fn a_caller_of_a_service_the_policy_does_not_know_is_an_application() {
    let policy = services_for_all(&[OPEN]);
    let decision = decide(&policy, &leg(process_of(ServiceId(9))), &Records::None, &all_available(&policy));
    assert_eq!(chosen(&decision.verdict), Some(1));
}

#[test]
fn a_service_is_never_its_own_inspector() {
    let policy = services_for_all(&[OPEN]);
    let records = Records::Carried(Chain::default());
    assert_eq!(
        decide(&policy, &leg(process_of(S1)), &records, &all_available(&policy)).verdict,
        Verdict::Direct
    );
}

#[test]
fn the_first_matching_filter_by_weight_then_id_is_the_hops() {
    let mut heavy = redirect(30, 1);
    heavy.weight = 5;
    let mut heavier_but_no_match = redirect(40, 1);
    heavier_but_no_match.weight = 9;
    heavier_but_no_match.conditions.application.uid = Some(4.into());
    let tied = redirect(20, 1);
    let filters = vec![tied, heavy.clone(), heavier_but_no_match, redirect(10, 1)];
    let one = policy(vec![service(1, OPEN)], vec![], filters.clone());
    let filter_of = |policy: &Policy| match verdict(policy, &all_available(policy)) {
        Verdict::Redirect { filter, .. } => Some(filter.0),
        Verdict::Direct | Verdict::Refuse(_) => None,
    };
    assert_eq!(filter_of(&one), Some(30));
    let without_heavy = filters.into_iter().filter(|filter| filter.id != heavy.id).collect();
    assert_eq!(filter_of(&policy(vec![service(1, OPEN)], vec![], without_heavy)), Some(10));
}

#[test]
fn application_conditions_follow_the_chain_and_via_looks_at_the_caller() {
    let of_app = |conditions: &mut Conditions| conditions.application.exe = Some(app().exe.into());
    let via_s1 = |conditions: &mut Conditions| conditions.via.exe = Some(process_of(S1).exe.into());
    for (ask, records, expected) in [
        (&of_app as &dyn Fn(&mut Conditions), Records::Carried(chain(&[1])), Some(2)),
        (&of_app, Records::None, None),
        (&via_s1, Records::Carried(chain(&[1])), Some(2)),
        (&via_s1, Records::None, Some(2)),
    ] {
        let mut filter = redirect(102, 2);
        ask(&mut filter.conditions);
        let policy = policy(vec![service(1, OPEN), service(2, OPEN)], vec![], vec![filter]);
        let decision = decide(&policy, &leg(process_of(S1)), &records, &all_available(&policy));
        assert_eq!(chosen(&decision.verdict), expected, "{records:?}");
    }
}

#[test]
fn an_absent_service_asks_its_failure_policy() {
    let policy = services_for_all(&[OPEN, CLOSED]);
    let second_only = with_availability([(2, Availability::Available)]);
    assert_eq!(chosen(&verdict(&policy, &second_only)), Some(2));
    let refusal = Refusal::ServiceAbsent { service: S2 };
    assert_eq!(verdict(&policy, &World::default()), Verdict::Refuse(refusal));
    assert_eq!(refusal.errno(), Errno::ECONNREFUSED);
}

#[test]
fn a_full_backlog_refuses_even_under_open() {
    let policy = services_for_all(&[OPEN, OPEN]);
    let world = with_availability([(1, Availability::BacklogFull), (2, Availability::Available)]);
    let refusal = Refusal::BacklogFull { service: S1 };
    assert_eq!(verdict(&policy, &world), Verdict::Refuse(refusal));
    assert_eq!(refusal.errno(), Errno::ECONNREFUSED);
}

#[test]
fn a_full_chain_ends_unless_a_closed_service_would_stay_unvisited() {
    let full = Records::Carried(chain(&[1; MAX_HOPS]));
    let judge = |on_failure: &[_]| {
        let policy = services_for_all(on_failure);
        decide(&policy, &leg(process_of(S1)), &full, &all_available(&policy)).verdict
    };
    let refusal = Refusal::HopLimit { service: ServiceId(3) };
    assert_eq!(judge(&[OPEN, OPEN]), Verdict::Direct);
    assert_eq!(judge(&[CLOSED, OPEN, CLOSED]), Verdict::Refuse(refusal));
    assert_eq!(refusal.errno(), Errno::ECONNREFUSED);
}

#[test]
fn the_last_hop_that_fits_is_taken() {
    let policy = services_for_all(&[OPEN, OPEN]);
    let records = Records::Carried(chain(&[1; MAX_HOPS - 1]));
    let decision = decide(&policy, &leg(process_of(S1)), &records, &all_available(&policy));
    assert_eq!(chosen(&decision.verdict), Some(2));
}

#[test]
fn without_a_route_the_kernels_error_answers_for_every_service_yet_blocks_hold() {
    let missing = Route::Missing(Errno::ENETUNREACH);
    let no_route = Verdict::Refuse(Refusal::NoRoute { errno: Errno::ENETUNREACH });
    let absent = World { route: missing, ..World::default() };
    for policy in [services_for_all(&[CLOSED]), services_for_all(&[OPEN])] {
        assert_eq!(verdict(&policy, &World { route: missing, ..all_available(&policy) }), no_route);
    }
    assert_eq!(verdict(&services_for_all(&[CLOSED]), &absent), no_route);
    // Nobody would have had the connection, so the kernel can say it by itself.
    assert_eq!(verdict(&services_for_all(&[OPEN]), &absent), Verdict::Direct);
    let world = absent;
    let blocked_by = Refusal::Blocked { filter: FilterId(7), errno: Errno::EACCES };
    assert_eq!(verdict(&blocked(), &world), Verdict::Refuse(blocked_by));
}

#[test]
fn of_a_socket_that_is_kept_to_a_device_the_switch_says_what_becomes_whatever_way_there_is() {
    let kept = |route| World { obstacle: Some(Obstacle::Device), route, ..World::default() };
    let (closed, open) = (services_for_all(&[CLOSED]), services_for_all(&[OPEN]));
    for route in [Route::Exists, Route::Missing(Errno::ENETUNREACH)] {
        for policy in [&closed, &open] {
            let refused = Verdict::Refuse(Refusal::Unredirectable);
            assert_eq!(verdict(policy, &kept(route)), refused);
            let permitting = policy.clone().with_unredirectable(Unredirectable::Permit);
            assert_eq!(verdict(&permitting, &kept(route)), Verdict::Direct);
        }
    }
    // Its own service, and who is wanted by nobody, are let go their way.
    let decision = decide(&closed, &leg(process_of(S1)), &Records::None, &kept(Route::Exists));
    assert_eq!(decision.verdict, Verdict::Direct);
    assert!(decision.trace.to_string().contains("bound to a device"), "{}", decision.trace);
}

#[test]
fn a_block_wins_over_a_redirect_and_over_its_refusal() {
    let refused = Verdict::Refuse(Refusal::Blocked { filter: FilterId(7), errno: Errno::EACCES });
    assert_eq!(verdict(&blocked(), &all_available(&blocked())), refused);
    assert_eq!(verdict(&blocked(), &World::default()), refused);
    let short = World { room: Room::Exhausted(Resource::Flows), ..all_available(&blocked()) };
    assert_eq!(verdict(&blocked(), &short), refused);
}

#[test]
fn the_application_sees_the_errno_that_the_filter_names() {
    let block = Action::Block { right: waylay_core::Right::Hard, errno: Errno::EHOSTUNREACH };
    let policy = policy(vec![], vec![sublayer(1, 0)], vec![auth(7, 1, 0, block)]);
    let Verdict::Refuse(refusal) = verdict(&policy, &World::default()) else { panic!("it is blocked") };
    assert_eq!(refusal.errno(), Errno::EHOSTUNREACH);
}

#[test]
fn the_flags_say_whether_a_leg_goes_to_a_service_and_whether_it_comes_from_one() {
    let is_blocked = |flags, caller, records: &Records, available| {
        let filters = vec![redirect(102, 2), auth_if(7, flags, Action::BLOCK)];
        let policy = policy(vec![service(1, CLOSED), service(2, CLOSED)], vec![sublayer(1, 0)], filters);
        let world = if available { all_available(&policy) } else { World::default() };
        let verdict = decide(&policy, &leg(caller), records, &world).verdict;
        matches!(verdict, Verdict::Refuse(Refusal::Blocked { .. }))
    };
    let redirected = |is| FlagConditions { redirected: Some(is), proxied: None };
    let proxied = |is| FlagConditions { redirected: None, proxied: Some(is) };
    let carried = Records::Carried(chain(&[1]));

    assert!(is_blocked(redirected(true), app(), &Records::None, true));
    assert!(!is_blocked(redirected(false), app(), &Records::None, true));
    assert!(!is_blocked(redirected(true), app(), &Records::None, false), "a refused leg goes to no service");
    assert!(!is_blocked(proxied(true), app(), &Records::None, true));
    assert!(is_blocked(proxied(true), process_of(S1), &Records::None, true));
    assert!(is_blocked(proxied(true), process_of(S1), &carried, true));
    assert!(is_blocked(proxied(true), app(), &carried, true));
    assert!(is_blocked(proxied(false), process_of(ServiceId(9)), &Records::None, true));
}

#[test]
fn no_shortage_becomes_a_direct_connection() {
    let policy = services_for_all(&[OPEN]);
    for resource in
        [Resource::Flows, Resource::FlowsOfCgroup, Resource::SocketStorage, Resource::Ports, Resource::Memory]
    {
        let world = World { room: Room::Exhausted(resource), ..all_available(&policy) };
        let refusal = Refusal::Shortage(resource);
        assert_eq!(verdict(&policy, &world), Verdict::Refuse(refusal));
        assert_eq!(refusal.errno(), Errno::ENOBUFS);
    }
}

#[test]
fn a_shortage_does_not_touch_legs_that_need_no_flow() {
    let policy = services_for_all(&[OPEN]);
    let world = World { room: Room::Exhausted(Resource::Flows), ..World::default() };
    assert_eq!(verdict(&policy, &world), Verdict::Direct);
}

#[test]
fn a_trace_can_be_explained_by_name() {
    let decision = decide(&blocked(), &leg(app()), &Records::None, &World::default());
    assert_eq!(
        decision.trace.explain(&blocked()).to_string(),
        "not redirected: service \"s1\" is absent and fails closed\n\
         sublayer \"l1\", filter 7: block (hard, EACCES)"
    );
}

#[test]
fn what_is_older_than_the_policy_ends_if_the_policy_says_so_and_would_not_have_let_it_go() {
    let (stays, now) = (ExistingVerdict::Stays, World::default());
    let judge = |policy: &Policy| decide_existing(policy, &leg(app()), &now);
    let redirected = services_for_all(&[CLOSED]);
    assert_eq!(judge(&blocked()), stays);
    assert_eq!(judge(&redirected), stays);
    let reset = |policy: Policy| policy.with_existing(Existing::Reset);
    assert!(matches!(
        judge(&reset(blocked())),
        ExistingVerdict::Ends(Verdict::Refuse(Refusal::Blocked { .. }))
    ));
    // Also where the service would be skipped for its absence.
    for policy in [redirected, services_for_all(&[OPEN])] {
        let ExistingVerdict::Ends(verdict) = judge(&reset(policy)) else { panic!() };
        assert_eq!(chosen(&verdict), Some(1));
    }
    let nothing = policy(vec![service(1, CLOSED)], vec![], vec![]);
    assert_eq!(judge(&reset(nothing)), stays);
    let elsewhere = World { namespace: Namespace::Foreign(7), ..World::default() };
    assert_eq!(decide_existing(&reset(blocked()), &leg(app()), &elsewhere), stays);
    let to_all = World { obstacle: Some(Obstacle::Broadcast), ..World::default() };
    let permitting = services_for_all(&[CLOSED]).with_unredirectable(Unredirectable::Permit);
    assert_eq!(decide_existing(&reset(permitting), &leg(app()), &to_all), stays);
}
