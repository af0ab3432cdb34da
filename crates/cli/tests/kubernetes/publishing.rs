//! Services of the gateways' class and Gateways, published by agents in real pods.

use serde_json::Value;
use testkit::Protocol::Tcp;

use crate::gateways::{GATEWAY, Published};
use crate::objects::NAMESPACE;

#[test]
fn a_service_by_class_is_published_and_says_where() -> anyhow::Result<()> {
    let Some(published) = Published::set()? else { return Ok(()) };
    published.apply(&service("shop", 8443))?;
    let answer = published.reached(8443, Tcp)?;
    assert!(answer.server.starts_with("node-"), "{answer:?}");

    let stored = published.until(
        "the Service says where it is published",
        || published.stored("service/shop"),
        |it| it["status"]["loadBalancer"]["ingress"].is_array(),
    )?;
    let ingress = &stored["status"]["loadBalancer"]["ingress"];
    assert_eq!(ingress[0]["ip"], GATEWAY, "{ingress}");
    // Connections arrive from an agent: kube-proxy must not short-circuit them.
    assert_eq!(ingress[0]["ipMode"], "Proxy", "{ingress}");

    published.kubectl(&["delete", "service", "-n", NAMESPACE, "shop"])?;
    published.closed(8443)?;
    published.nothing_was_forbidden()
}

#[test]
fn a_tcp_route_leads_from_a_gateway_to_pods_and_both_say_so() -> anyhow::Result<()> {
    let Some(published) = Published::set()? else { return Ok(()) };
    published.apply(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n\
         metadata: { name: portcullis }\n\
         spec: { controllerName: portcullis.dev/gateway-controller }\n",
    )?;
    published.apply(&format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{ name: public, namespace: {NAMESPACE} }}\n\
         spec:\n  gatewayClassName: portcullis\n  listeners:\n\
         \x20 - {{ name: db, protocol: TCP, port: 5432 }}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\n\
         metadata: {{ name: db, namespace: {NAMESPACE} }}\n\
         spec:\n  parentRefs: [{{ name: public, sectionName: db }}]\n  rules:\n\
         \x20 - backendRefs: [{{ name: inner, port: 9000 }}]\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{ name: inner, namespace: {NAMESPACE} }}\n\
         spec:\n  selector: {{ app: echo }}\n  ports: [{{ port: 9000, targetPort: 9000 }}]\n"
    ))?;
    published.reached(5432, Tcp)?;
    for (object, path, conditions) in [
        ("gatewayclass/portcullis", "/status/conditions", &["Accepted"][..]),
        ("gateway/public", "/status/conditions", &["Accepted", "Programmed"]),
        (
            "gateway/public",
            "/status/listeners/0/conditions",
            &["Accepted", "ResolvedRefs", "Programmed"],
        ),
        ("tcproute/db", "/status/parents/0/conditions", &["Accepted", "ResolvedRefs"]),
    ] {
        for type_ in conditions {
            published.until(
                &format!("{object} to be {type_}"),
                || published.stored(object),
                |it| it.pointer(path).is_some_and(|it| is_true(it, type_)),
            )?;
        }
    }
    let gateway = published.stored("gateway/public")?;
    assert_eq!(gateway["status"]["addresses"][0]["value"], GATEWAY, "{gateway}");
    assert_eq!(gateway["status"]["listeners"][0]["attachedRoutes"], 1, "{gateway}");
    published.nothing_was_forbidden()
}

#[test]
fn pods_that_come_and_go_are_followed_and_a_lost_agent_costs_nothing() -> anyhow::Result<()> {
    let Some(published) = Published::set()? else { return Ok(()) };
    published.apply(&service("shop", 8443))?;
    let prober = published.prober(8443)?;
    // The agent that is asked to go finishes first; the other one takes what is new.
    let pods = published.agents()?;
    assert_eq!(pods.len(), 2, "{pods:?}");
    published.kubectl(&["delete", "pod", "-n", "portcullis-system", "--wait=false", &pods[0]])?;
    published.until(
        "another agent to be linked",
        || published.stored("edgegateway/g1"),
        |it| {
            let agents = it["status"]["agents"].as_array().into_iter().flatten();
            let names: Vec<_> = agents.filter_map(|it| it["name"].as_str()).collect();
            names.len() == 2 && !names.contains(&pods[0].as_str())
        },
    )?;
    let attempts = prober.stop()?;
    let failed: Vec<_> = attempts.iter().filter(|it| it.outcome.answer().is_none()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), attempts.len());
    published.nothing_was_forbidden()
}

#[test]
fn a_month_that_is_used_up_is_said_in_the_cluster() -> anyhow::Result<()> {
    let Some(published) = Published::set()? else { return Ok(()) };
    published.apply(&service("shop", 8443))?;
    for _ in 0..20 {
        published.reached(8443, Tcp)?;
    }
    let allow = |bytes: &str| {
        let quota = format!("{{ bytesPerMonth: {bytes}, action: warn }}");
        let quota = if bytes == "none" { "null" } else { &quota };
        let patch = format!("spec: {{ quota: {quota} }}");
        published.kubectl(&["patch", "edgegateway", "g1", "--type=merge", "-p", &patch])
    };
    let until_said = |status: &str, reason: &str| {
        let said = |it: &Value| {
            let condition = of_type(&it["status"]["conditions"], "WithinQuota");
            condition.is_some_and(|it| it["status"] == status && it["reason"] == reason)
        };
        let what = format!("WithinQuota to be {status}: {reason}");
        published.until(&what, || published.stored("edgegateway/g1"), said)
    };
    allow("1")?;
    for _ in 0..20 {
        published.reached(8443, Tcp)?;
    }
    until_said("False", "QuotaExceeded")?;
    until_event(&published, "QuotaExceeded", "Warning", "visitors are served as before")?;
    allow("1000000000000")?;
    let stored = until_said("True", "WithinQuota")?;
    until_event(&published, "WithinQuota", "Normal", "nothing is left to do")?;

    // What the probes of the gateway add is less than the rest.
    let used = stored["status"]["quota"]["usedBytes"].as_u64().unwrap_or_default();
    assert!(used > 500, "{stored}");
    allow(&(used + used / 8).to_string())?;
    until_said("True", "QuotaNearlyUsed")?;
    until_event(&published, "QuotaNearlyUsed", "Warning", "beyond them it is only said")?;

    allow("none")?;
    let gone = |it: &Value| of_type(&it["status"]["conditions"], "WithinQuota").is_none();
    published.until("it is no longer said", || published.stored("edgegateway/g1"), gone)?;
    published.nothing_was_forbidden()
}

/// Waits for an Event about the gateway.
fn until_event(
    published: &Published,
    reason: &str,
    type_: &str,
    text: &str,
) -> anyhow::Result<Value> {
    let events = || {
        let said =
            published.kubectl(&["get", "events.events.k8s.io", "-n", "default", "-o", "json"])?;
        Ok(serde_json::from_str(&said)?)
    };
    published.until(&format!("an Event {reason}"), events, |it| {
        it["items"].as_array().into_iter().flatten().any(|it| {
            it["regarding"]["name"] == "g1"
                && it["reason"] == reason
                && it["type"] == type_
                && it["note"].as_str().is_some_and(|it| it.contains(text))
        })
    })
}

/// A Service over the echo pods, published at this port.
fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\n\
         spec:\n  type: LoadBalancer\n  loadBalancerClass: portcullis.dev/gateway\n  \
         allocateLoadBalancerNodePorts: false\n  selector: {{ app: echo }}\n  \
         ports: [{{ port: {port}, targetPort: 9000 }}]\n"
    )
}

fn is_true(conditions: &Value, type_: &str) -> bool {
    of_type(conditions, type_).is_some_and(|it| it["status"] == "True")
}

fn of_type<'a>(conditions: &'a Value, type_: &str) -> Option<&'a Value> {
    conditions.as_array()?.iter().find(|it| it["type"] == type_)
}
