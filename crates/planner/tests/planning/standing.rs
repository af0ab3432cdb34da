//! What a plan that is kept up to date plans again, and what it leaves as it is.

use planner::cluster_view::{Change, ClusterView, Object};
use planner::forward::{Changed, StandingPlan, forward_plan};
use planner::host_view::HostView;

use crate::objects::{
    HostParts, IntoObject, Named, Readiness, ServiceParts, host, node, service, slice,
};
use crate::world::{facts, plain, view};

#[test]
fn a_node_or_the_host_itself_changes_only_the_forwards_that_depend_on_it() {
    let of = |name: &str, port: &str, family: &str| {
        let service = service(name).port(80, 30080).host_ports(port);
        service.spec(|it| it.ip_families = Some(vec![family.to_owned()])).object()
    };
    let both = service("web/both").port(80, 30080).host_ports("22, 82").object();
    let local = service("web/local").port(80, 30080).local().host_ports("83").object();
    let slice = slice("web/local", &["n2"]).object();
    let nodes = || [node("n1", &["10.0.0.1"]), node("n2", &["10.0.0.2", "2001:db8:1::2"])];
    let [n1, n2] = nodes().map(IntoObject::object);
    let services = [of("web/v4", "80", "IPv4"), of("web/v6", "81", "IPv6"), both, local, slice];
    let by_ssh = host("edge", &["eth0", "wg0"]).over_ssh("203.0.113.7", 22);
    let mut world = World::new(by_ssh.object(), services.into_iter().chain([n1.clone(), n2]));
    assert_eq!(world.forwards(), "80/tcp 81/tcp 82/tcp 83/tcp");

    // One node of two: every forward stays as it is.
    world.apply(n1.clone());
    assert_eq!(world.follow(), Changed::Nothing);
    let [broken, _] = nodes().map(|it| it.ready("False").object());
    world.apply(broken);
    assert_eq!(world.follow(), Changed::Everything);
    assert_eq!(world.forwards(), "80/tcp 81/tcp 82/tcp 83/tcp");
    world.apply(n1.clone());
    world.follow();

    // A family without a node, a Service without a node, and no node at all.
    world.apply(node("n2", &["10.0.0.2"]).object());
    world.follow();
    assert_eq!(world.forwards(), "80/tcp 82/tcp 83/tcp");
    world.apply(nodes()[1].clone().ready("False").object());
    world.follow();
    assert_eq!(world.forwards(), "80/tcp 82/tcp");
    world.apply(nodes()[0].clone().ready("False").object());
    world.follow();
    assert_eq!(world.forwards(), "");
    nodes().into_iter().for_each(|it| world.apply(it.object()));
    world.follow();
    assert_eq!(world.forwards(), "80/tcp 81/tcp 82/tcp 83/tcp");

    // What the host listens on says through which port it is reached.
    world.facts.listeners =
        HostView::read("[]", "tcp LISTEN 0 1 *:2222 *:*").expect("a listing").listeners;
    world.follow();
    assert_eq!(world.forwards(), "22/tcp 80/tcp 81/tcp 82/tcp 83/tcp");

    // Without an address of the external interface nothing is forwarded.
    world.apply(host("edge", &["eth0", "wg0"]).external("eth0").object());
    world.follow();
    world.facts.addresses.clear();
    world.follow();
    assert_eq!(world.forwards(), "");
    world.facts = facts();
    assert_eq!(world.follow(), Changed::Everything);
    assert_eq!(world.forwards(), "22/tcp 80/tcp 81/tcp 82/tcp 83/tcp");
}

#[test]
fn the_addresses_of_a_host_make_nobody_plan_again() {
    let web = service("web/blog").port(80, 30080).host_ports("80").object();
    let mut view = view(plain().into_iter().chain([web]));
    let mut plan = StandingPlan::new("edge");
    assert_eq!(plan.update(&view, &facts()), Ok(Changed::Everything));
    let edge = || host("edge", &["eth0", "wg0"]);
    assert!(view.change(Change::Applied(edge().tells(&["203.0.113.7"], "True").object())));
    assert_eq!(plan.update(&view, &facts()), Ok(Changed::Nothing));
    // A finding is told, and changes no forward.
    let broken = service("web/broken").host_ports("x").object();
    assert!(view.change(Change::Applied(broken)));
    assert_eq!(plan.update(&view, &facts()), Ok(Changed::Nothing));
    assert_eq!(plan.desired().findings.len(), 1);
    // An option is a reason to plan.
    let masquerades = HostParts::spec(edge(), |it| it.masquerade = true);
    assert!(view.change(Change::Applied(masquerades.tells(&["203.0.113.7"], "True").object())));
    assert_eq!(plan.update(&view, &facts()), Ok(Changed::Everything));
}

/// A view, what the host says about itself, and the plan that follows both.
struct World {
    view: ClusterView,
    facts: HostView,
    plan: StandingPlan,
}

impl World {
    fn new(host: Object, objects: impl Iterator<Item = Object>) -> Self {
        let view = view(objects.chain([host]));
        let mut world = Self { view, facts: facts(), plan: StandingPlan::new("edge") };
        assert_eq!(world.follow(), Changed::Everything);
        world
    }

    fn apply(&mut self, object: Object) {
        self.view.change(Change::Applied(object));
    }

    /// Brings the plan up to date, and compares it with one that is made anew.
    #[track_caller]
    fn follow(&mut self) -> Changed {
        let changed = self.plan.update(&self.view, &self.facts).expect("a plan");
        let anew = forward_plan(&self.view, "edge", &self.facts).expect("a plan");
        assert_eq!(self.plan.desired(), &anew);
        changed
    }

    fn forwards(&self) -> String {
        let forwards = self.plan.desired().forwarding.forwards.keys();
        forwards.map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }
}
