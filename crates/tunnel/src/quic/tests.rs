//! What QUIC does beyond what every carrier does, and what is easiest to see here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tunnel_proto::message::{Protocol, Refused, RefusedReason};

use super::stage::{Authority, Cut, Stage, exchange, next, open, pair, soon};
use super::{setup, unread};
use crate::dialler::DialError;
use crate::link::{Ending, Flow, Meter, OpenError};
use crate::session::{AgentSession, Ended, GatewaySession};
use crate::trust::alpn;

#[tokio::test]
async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    let (from_gateway, from_agent) = flow(&gateway, &mut agent).await;
    let (mut visitor, at_gateway) = pair().await;
    let (at_agent, mut backend) = pair().await;
    let (meter, first) = (Arc::new(Meter::default()), Bytes::from_static(b"first "));
    let gateway_end = tokio::spawn(from_gateway.relay(at_gateway, first, Arc::clone(&meter)));
    let agent_end = tokio::spawn(from_agent.relay(at_agent, Bytes::new(), Arc::default()));

    let question = vec![7; 3_000_000];
    let asked = async {
        let mut came = Vec::new();
        backend.read_to_end(&mut came).await.expect("the question");
        assert_eq!(came.len(), question.len() + 6);
        assert!(came.starts_with(b"first "));
        // The visitor has ended its direction; this one goes on.
        backend.write_all(&vec![8; 5_000_000]).await.expect("the answer");
        backend.shutdown().await.expect("the end of the answer");
    };
    let (answer, ()) = tokio::join!(exchange(&mut visitor, &question), asked);
    assert_eq!(answer.len(), 5_000_000);
    assert_eq!(soon(gateway_end).await.expect("no panic"), Ending::Closed);
    assert_eq!(soon(agent_end).await.expect("no panic"), Ending::Closed);
    assert_eq!(meter.out.load(Ordering::Relaxed), 3_000_006);
    assert_eq!(meter.back.load(Ordering::Relaxed), 5_000_000);
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    for visitor_breaks in [true, false] {
        let (mut visitor, mut backend, gateway_end, agent_end) =
            relayed(&gateway, &mut agent).await;
        let (breaks, mut sees) = if visitor_breaks {
            (&mut visitor, &mut backend)
        } else {
            (&mut backend, &mut visitor)
        };
        breaks.write_all(b"hello").await.expect("sent");
        let mut came = [0; 5];
        soon(sees.read_exact(&mut came)).await.expect("hello");
        socket2::SockRef::from(&*breaks).set_linger(Some(Duration::ZERO)).expect("a socket");
        let endings = [Ending::PlainReset, Ending::FarReset];
        let (near, far) =
            if visitor_breaks { (gateway_end, agent_end) } else { (agent_end, gateway_end) };
        if visitor_breaks {
            drop(visitor);
            sees = &mut backend;
        } else {
            drop(backend);
            sees = &mut visitor;
        }
        let error = soon(sees.read(&mut came)).await.expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let found = [soon(near).await.expect("no panic"), soon(far).await.expect("no panic")];
        assert_eq!(found, endings);
    }
}

#[tokio::test]
async fn a_refusal_says_why() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    let why = Refused { reason: RefusedReason::BackendRefused, detail: "nobody listens".into() };
    let refuse = async {
        let incoming = next(&mut agent).await;
        assert_eq!(incoming.open, open(Protocol::Tcp));
        incoming.answer.refuse(why.clone()).await;
    };
    let (answer, ()) = tokio::join!(soon(gateway.link.open(open(Protocol::Tcp))), refuse);
    match answer.err() {
        Some(OpenError::Refused(told)) => assert_eq!(told, why),
        other => panic!("expected a refusal: {other:?}"),
    }
    assert_eq!(gateway.link.measured().flows, 0);
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_met_with_a_reset() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    let asked = gateway.link.open(open(Protocol::Tcp));
    let incoming = tokio::select! {
        _ = asked => panic!("nobody has answered"),
        incoming = next(&mut agent) => incoming,
    };
    // The gateway has gone on to another agent by now. This one accepts before it can know.
    let flow = incoming.answer.accept().await;
    if let Ok(flow) = flow {
        let (at_agent, mut backend) = pair().await;
        assert_eq!(
            soon(flow.relay(at_agent, Bytes::new(), Arc::default())).await,
            Ending::FarReset
        );
        let error = soon(backend.read(&mut [0])).await.expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(gateway.link.measured().flows, 0);
}

#[tokio::test]
async fn an_agent_that_gives_no_answer_refuses() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    let forget = async { drop(next(&mut agent).await) };
    let (answer, ()) = tokio::join!(soon(gateway.link.open(open(Protocol::Tcp))), forget);
    assert!(matches!(answer, Err(OpenError::Refused(_))));
    assert_eq!(gateway.control.status().ended(), None, "the session goes on");
}

#[tokio::test]
async fn datagrams_keep_their_boundaries_whatever_their_length() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    let accept = async {
        let answer = next(&mut agent).await.answer;
        answer.accept().await.expect("accepted").into_datagrams()
    };
    let (flow, far) = tokio::join!(soon(gateway.link.open(open(Protocol::Udp))), accept);
    let near = flow.expect("accepted").into_datagrams();
    for length in [0, 1, 1000, 1400, 1500, 9000, 65_507] {
        near.send(&vec![1; length]).expect("sent");
        assert_eq!(soon(far.receive()).await.expect("a datagram"), vec![1; length]);
        far.send(&vec![2; length]).expect("sent");
        assert_eq!(soon(near.receive()).await.expect("a datagram"), vec![2; length]);
    }
    drop(near);
    assert_eq!(soon(far.receive()).await, None, "the other end has ended the flow");
    drop(far);
    assert_eq!(gateway.link.measured().flows, 0);
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_no_other() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    let (stuck, mut writes, ..) = relayed(&gateway, &mut agent).await;
    let writer = tokio::spawn(async move {
        let block = vec![0; 1 << 20];
        while writes.write_all(&block).await.is_ok() {}
    });
    // As much as the window takes is on its way.
    let (mut visitor, mut backend, ..) = relayed(&gateway, &mut agent).await;
    let served = async {
        let mut came = Vec::new();
        backend.read_to_end(&mut came).await.expect("the question");
        backend.write_all(&vec![9; 30 << 20]).await.expect("the answer");
        drop(backend);
    };
    let (answer, ()) = tokio::join!(exchange(&mut visitor, b"?"), served);
    assert_eq!(answer.len(), 30 << 20);
    assert!(!writer.is_finished(), "the stuck one is still stuck");
    writer.abort();
    drop(stuck);
}

#[tokio::test]
async fn many_readers_that_do_not_read_hold_up_no_other_and_are_not_too_many() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    let (mut stuck, mut ends, mut writers) = (Vec::new(), Vec::new(), JoinSet::new());
    for _ in 0..unread::MOST + 3 {
        let (visitor, mut writes, end, _) = relayed(&gateway, &mut agent).await;
        stuck.push(visitor);
        ends.push(end);
        writers.spawn(async move {
            let block = vec![0; 1 << 20];
            while writes.write_all(&block).await.is_ok() {}
        });
    }
    soon(async {
        while ends.iter().filter(|it| it.is_finished()).count() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (mut visitor, mut backend, ..) = relayed(&gateway, &mut agent).await;
    let served = async {
        let mut came = Vec::new();
        backend.read_to_end(&mut came).await.expect("the question");
        backend.write_all(&vec![9; 10 << 20]).await.expect("the answer");
        drop(backend);
    };
    let (answer, ()) = soon(async { tokio::join!(exchange(&mut visitor, b"?"), served) }).await;
    assert_eq!(answer.len(), 10 << 20);
    assert_eq!(ends.iter().filter(|it| it.is_finished()).count(), 3, "the others stay");
}

/// Packets are dropped and nobody says a word: both ends find out, and within six seconds.
#[tokio::test]
async fn silent_death_is_noticed_by_both_ends() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    let (mut visitor, mut backend, ..) = relayed(&gateway, &mut agent).await;
    visitor.write_all(b"hello").await.expect("sent");
    soon(backend.read_exact(&mut [0; 5])).await.expect("hello");
    stage.wire.cut(Cut::Udp);
    let began = Instant::now();
    // Visitors keep coming; that is no sign of life.
    visitor.write_all(b"are you there?").await.expect("sent");
    let (here, there) = (gateway.control.status(), agent.control.status());
    let ended = soon(async { tokio::join!(here.until_ended(), there.until_ended()) }).await;
    assert!(ended.0.is_silence() && ended.1.is_silence(), "{ended:?}");
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    let error = soon(visitor.read(&mut [0])).await.expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn flows_survive_a_change_of_the_agents_address() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    let (mut visitor, mut backend, ..) = relayed(&gateway, &mut agent).await;
    stage.wire.move_away();
    for _ in 0..100 {
        visitor.write_all(b"hello").await.expect("sent");
        soon(backend.read_exact(&mut [0; 5])).await.expect("hello");
        backend.write_all(b"world").await.expect("sent");
        soon(visitor.read_exact(&mut [0; 5])).await.expect("world");
    }
    assert_eq!(gateway.control.status().ended(), None);
}

#[tokio::test]
async fn flows_survive_the_eviction_of_their_session() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    let (mut visitor, mut backend, ..) = relayed(&gateway, &mut agent).await;
    let link = Arc::clone(&gateway.link);
    gateway.evict(2);
    let ended = soon(agent.control.status().until_ended()).await;
    assert_eq!(ended, Ended::Evicted { by: 2 });
    assert!(matches!(link.open(open(Protocol::Tcp)).await, Err(OpenError::Ended)));
    let answered = async {
        let mut came = Vec::new();
        backend.read_to_end(&mut came).await.expect("the question");
        backend.write_all(&came).await.expect("the answer");
        drop(backend);
    };
    let (answer, ()) = tokio::join!(exchange(&mut visitor, b"still here"), answered);
    assert_eq!(answer, b"still here");
}

#[tokio::test]
async fn the_last_message_arrives_before_the_end() {
    let mut stage = Stage::new().await;
    let (gateway, mut agent) = stage.session().await;
    gateway.control.send(tunnel_proto::message::ToAgent::Drain).expect("in being");
    drop(gateway);
    let said = soon(agent.control.receive()).await;
    assert_eq!(said, Some(tunnel_proto::message::ToAgent::Drain));
    assert_eq!(soon(agent.control.status().until_ended()).await, Ended::There);
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (gateway, agent) in [(ours.gateway(), theirs.agent()), (theirs.gateway(), ours.agent())] {
        let stage = Stage::with(gateway, agent).await;
        let error = soon(super::dial(stage.settings(), 1)).await.expect_err("strangers");
        assert!(matches!(error, DialError::Handshake { .. }), "{error:?}");
    }
}

/// What may be opened has its place from a connection's first packet on: a stranger's must be small.
#[tokio::test]
async fn an_agent_may_open_its_control_channel_and_nothing_else() {
    let stage = Stage::new().await;
    let config = stage.settings().handshakes.config();
    let config = setup::client(&config, alpn::QUIC).expect("a configuration");
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    let connecting = endpoint.connect_with(config, stage.wire.address, "gateway");
    let connection = soon(connecting.expect("it begins")).await.expect("a connection");
    let _control = soon(connection.open_bi()).await.expect("a channel");
    let second = futures::poll!(std::pin::pin!(connection.open_bi()));
    assert!(second.is_pending(), "there is room for another");
}

#[tokio::test]
async fn nobody_there_is_told_in_time() {
    let stage = Stage::new().await;
    stage.wire.cut(Cut::Udp);
    let mut settings = stage.settings().clone();
    settings.patience = Duration::from_millis(300);
    let error = soon(super::dial(&settings, 1)).await.expect_err("nobody answers");
    assert!(matches!(error, DialError::Late(_)), "{error:?}");
}

/// Both ends of an open flow.
async fn flow(
    gateway: &GatewaySession,
    agent: &mut AgentSession,
) -> (Box<dyn Flow>, Box<dyn Flow>) {
    let accept = async { next(agent).await.answer.accept().await };
    let (near, far) = tokio::join!(soon(gateway.link.open(open(Protocol::Tcp))), accept);
    (near.expect("accepted"), far.expect("accepted"))
}

/// An open flow, relayed: the visitor's end, the backend's end, and how each relay ends.
async fn relayed(
    gateway: &GatewaySession,
    agent: &mut AgentSession,
) -> (TcpStream, TcpStream, tokio::task::JoinHandle<Ending>, tokio::task::JoinHandle<Ending>) {
    let (near, far) = flow(gateway, agent).await;
    let (visitor, at_gateway) = pair().await;
    let (at_agent, backend) = pair().await;
    let near = tokio::spawn(near.relay(at_gateway, Bytes::new(), Arc::default()));
    let far = tokio::spawn(far.relay(at_agent, Bytes::new(), Arc::default()));
    (visitor, backend, near, far)
}
