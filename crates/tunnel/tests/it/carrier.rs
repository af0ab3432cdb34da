//! What every carrier does, and each in the same way.

mod bytes;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tunnel::acceptor::Sockets;
use tunnel::link::{Ending, OpenError};
use tunnel::session::Ended;
use tunnel_proto::message::{Protocol, Refused, RefusedReason, ToAgent, ToGateway};

use self::bytes::{
    break_off, counted, drain, ended, kind, pattern, pour, receive, receive_all, send,
};
use crate::stage::{By, Line, SOON, Stage, Trust, echo_everything, open, pair, session, soon};

/// Every test, for one carrier.
macro_rules! carrier {
    ($carrier:ident, $by:expr) => {
        tests! { $carrier, $by,
            bytes_arrive_both_ways,
            what_was_read_already_goes_first,
            a_half_closed_direction_stays_half_closed,
            a_visitor_that_breaks_off_resets_the_backend,
            a_backend_that_breaks_off_resets_the_visitor,
            a_reset_after_a_half_close_arrives,
            a_refusal_says_why,
            an_answer_that_nobody_gives_is_a_refusal,
            a_late_answer_is_met_with_a_reset,
            two_hundred_flows_go_at_once,
            flows_follow_one_another,
            bulk_data_arrives_whole_both_ways,
            a_slow_reader_holds_up_no_other,
            datagrams_keep_their_boundaries,
            a_flow_of_datagrams_ends_with_either_end,
            messages_pass_and_the_round_trip_is_measured,
            a_newer_session_evicts_the_older,
            draining_lets_flows_go_on,
            a_closed_session_ends_its_flows,
            an_agent_that_is_gone_ends_the_session
        }
    };
}

macro_rules! tests {
    ($carrier:ident, $by:expr, $($test:ident),+) => {
        mod $carrier {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test($by).await;
                }
            )+
        }
    };
}

carrier!(auto, crate::stage::By::Auto);
carrier!(quic, crate::stage::By::Quic);
carrier!(tls, crate::stage::By::Tls);

async fn bytes_arrive_both_ways(by: By) {
    let mut stage = Stage::new(by).await;
    let mut line = stage.line().await;
    for length in [1, 100, 5_000, 16_384, 70_000] {
        let sent = pattern(length);
        send(&mut line.visitor, &sent).await;
        assert_eq!(receive(&mut line.backend, length).await, sent);
        send(&mut line.backend, &sent).await;
        assert_eq!(receive(&mut line.visitor, length).await, sent);
    }
    let total: u64 = 1 + 100 + 5_000 + 16_384 + 70_000;
    let of_session = || stage.gateway.link.measured().bytes;
    soon("every byte counts", counted(&line.meters, of_session, total)).await;
    assert_eq!(stage.gateway.link.measured().flows, 1);
    drop((line.visitor, line.backend));
}

async fn what_was_read_already_goes_first(by: By) {
    let mut stage = Stage::new(by).await;
    let (mut visitor, plain) = pair().await;
    let (mut backend, agents) = pair().await;
    send(&mut visitor, b" and what comes").await;
    let (flow, agent) =
        stage.open("first", Protocol::Tcp, async |incoming| incoming.answer.accept().await).await;
    let first = pattern(300_000);
    let relayed = flow.expect("accepted").relay(plain, first.clone().into(), Arc::default());
    let agent = agent.expect("the gateway waits").relay(agents, Bytes::new(), Arc::default());
    tokio::spawn(relayed);
    tokio::spawn(agent);
    assert!(receive(&mut backend, first.len()).await == first);
    assert_eq!(receive(&mut backend, 15).await, b" and what comes");
}

async fn a_half_closed_direction_stays_half_closed(by: By) {
    let mut stage = Stage::new(by).await;
    for visitor_first in [true, false] {
        let mut line = stage.line().await;
        let (early, late) = if visitor_first {
            (&mut line.visitor, &mut line.backend)
        } else {
            (&mut line.backend, &mut line.visitor)
        };
        send(early, b"the question").await;
        early.shutdown().await.expect("it is open");
        assert_eq!(receive_all(late).await, b"the question");
        let answer = pattern(200_000);
        send(late, &answer).await;
        late.shutdown().await.expect("it is open");
        assert!(receive_all(early).await == answer);
        assert_eq!(line.ended().await, [Ending::Closed; 2]);
    }
}

async fn a_visitor_that_breaks_off_resets_the_backend(by: By) {
    let mut stage = Stage::new(by).await;
    let mut line = stage.line().await;
    send(&mut line.visitor, b"hello").await;
    assert_eq!(receive(&mut line.backend, 5).await, b"hello");
    break_off(line.visitor);
    assert_eq!(soon("a reset", line.backend.read_u8()).await.map_err(kind), RESET);
    assert_eq!(ended(line.ending).await, [Ending::PlainReset, Ending::FarReset]);
}

async fn a_backend_that_breaks_off_resets_the_visitor(by: By) {
    let mut stage = Stage::new(by).await;
    let mut line = stage.line().await;
    send(&mut line.visitor, b"hello").await;
    assert_eq!(receive(&mut line.backend, 5).await, b"hello");
    break_off(line.backend);
    assert_eq!(soon("a reset", line.visitor.read_u8()).await.map_err(kind), RESET);
    assert_eq!(ended(line.ending).await, [Ending::FarReset, Ending::PlainReset]);
}

async fn a_reset_after_a_half_close_arrives(by: By) {
    let mut stage = Stage::new(by).await;
    let mut line = stage.line().await;
    line.visitor.shutdown().await.expect("it is open");
    assert_eq!(receive_all(&mut line.backend).await, b"");
    send(&mut line.backend, b"unread").await;
    assert_eq!(receive(&mut line.visitor, 6).await, b"unread");
    break_off(line.visitor);
    // Only what is written is met by the reset that comes.
    let broken = async {
        loop {
            if let Err(error) = line.backend.write_all(&[0; 1000]).await {
                return error.kind();
            }
        }
    };
    let broken = soon("a reset", broken).await;
    assert!(matches!(broken, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
    assert_eq!(ended(line.ending).await, [Ending::PlainReset, Ending::FarReset]);
    // What carried it is not spoilt for the next.
    let mut line = stage.line().await;
    send(&mut line.visitor, b"again").await;
    assert_eq!(receive(&mut line.backend, 5).await, b"again");
}

async fn a_refusal_says_why(by: By) {
    let mut stage = Stage::new(by).await;
    for reason in [RefusedReason::NoEndpoint, RefusedReason::BackendRefused] {
        let refused = Refused { reason, detail: "nobody there".to_owned() };
        let (flow, ()) = stage
            .open("closed", Protocol::Tcp, async |incoming| {
                incoming.answer.refuse(refused.clone()).await;
            })
            .await;
        match flow.err() {
            Some(OpenError::Refused(why)) => assert_eq!(why, refused),
            other => panic!("expected a refusal, found {other:?}"),
        }
    }
    assert_eq!(stage.gateway.link.measured().flows, 0);
}

async fn an_answer_that_nobody_gives_is_a_refusal(by: By) {
    let mut stage = Stage::new(by).await;
    let (flow, ()) =
        stage.open("dropped", Protocol::Tcp, async |incoming| drop(incoming.answer)).await;
    assert!(matches!(flow.err(), Some(OpenError::Refused(_))));
}

async fn a_late_answer_is_met_with_a_reset(by: By) {
    let mut stage = Stage::new(by).await;
    let impatient = async {
        let opened = stage.gateway.link.open(open("slow", Protocol::Tcp));
        tokio::time::timeout(Duration::from_millis(100), opened).await
    };
    let (given_up, incoming) = tokio::join!(impatient, stage.agent.flows.recv());
    assert!(given_up.is_err(), "nobody has answered");
    let (mut backend, agents) = pair().await;
    let ending = match incoming.expect("a flow").answer.accept().await {
        Ok(flow) => soon("its end", flow.relay(agents, Bytes::new(), Arc::default())).await,
        // It is known already.
        Err(_) => {
            break_off(agents);
            Ending::FarReset
        }
    };
    assert!(matches!(ending, Ending::FarReset | Ending::Lost), "{ending:?}");
    assert_eq!(soon("a reset", backend.read_u8()).await.map_err(kind), RESET);
    // The session is none the worse for it.
    let mut line = stage.line().await;
    send(&mut line.visitor, b"on").await;
    assert_eq!(receive(&mut line.backend, 2).await, b"on");
}

async fn two_hundred_flows_go_at_once(by: By) {
    let Stage { gateway, agent, acceptor: _acceptor, trust: _trust, .. } = Stage::new(by).await;
    let _echo = echo_everything(agent.flows);
    let _control = agent.control;
    let mut visits = tokio::task::JoinSet::new();
    for number in 0..200_usize {
        let link = Arc::clone(&gateway.link);
        visits.spawn(async move {
            let (mut visitor, plain) = pair().await;
            let flow = link.open(open("echo", Protocol::Tcp)).await.expect("it is accepted");
            tokio::spawn(flow.relay(plain, Bytes::new(), Arc::default()));
            let sent = pattern(1_000 + number * 100);
            send(&mut visitor, &sent).await;
            assert!(receive(&mut visitor, sent.len()).await == sent, "flow {number}");
            visitor
        });
    }
    let visitors = soon("every visit", visits.join_all()).await;
    assert_eq!(gateway.link.measured().flows, 200, "nobody has left yet");
    drop(visitors);
    soon("their end", async {
        while gateway.link.measured().flows > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn flows_follow_one_another(by: By) {
    let mut stage = Stage::new(by).await;
    for number in 0..100_usize {
        let mut line = stage.line().await;
        let sent = pattern(number * 10 + 1);
        send(&mut line.visitor, &sent).await;
        assert_eq!(receive(&mut line.backend, sent.len()).await, sent);
        match number % 4 {
            0 => break_off(line.visitor),
            1 => break_off(line.backend),
            2 => drop((line.visitor, line.backend)),
            _ => drop((line.backend, line.visitor)),
        }
        ended(line.ending).await;
    }
}

async fn bulk_data_arrives_whole_both_ways(by: By) {
    let mut stage = Stage::new(by).await;
    let line = stage.line().await;
    let Line { visitor, backend, ending, .. } = line;
    const LENGTH: u64 = 48 << 20;
    let (visitor_read, visitor_write) = visitor.into_split();
    let (backend_read, backend_write) = backend.into_split();
    let (sent_up, sent_down, came_up, came_down) = tokio::join!(
        tokio::spawn(pour(visitor_write, 1, LENGTH)),
        tokio::spawn(pour(backend_write, 2, LENGTH)),
        tokio::spawn(drain(backend_read)),
        tokio::spawn(drain(visitor_read)),
    );
    let (sent_up, sent_down) = (sent_up.expect("no panic"), sent_down.expect("no panic"));
    assert_eq!(came_up.expect("no panic"), (LENGTH, sent_up));
    assert_eq!(came_down.expect("no panic"), (LENGTH, sent_down));
    assert_eq!(ended(ending).await, [Ending::Closed; 2]);
}

async fn a_slow_reader_holds_up_no_other(by: By) {
    let mut stage = Stage::new(by).await;
    let stuck = stage.line().await;
    // Fills everything on the way to somebody who never reads.
    let filling = tokio::spawn(async move {
        let mut visitor = stuck.visitor;
        let mut written = 0;
        while let Ok(Ok(more)) =
            tokio::time::timeout(Duration::from_millis(500), visitor.write(&[7; 64 << 10])).await
        {
            written += more;
        }
        (visitor, written)
    });
    let (_visitor, written) = soon("no room any more", filling).await.expect("no panic");
    assert!(written > 64 << 10, "{written} bytes on the way");
    let Line { visitor, backend, .. } = stage.line().await;
    let begin = Instant::now();
    let (_, write) = visitor.into_split();
    let (read, _keep) = backend.into_split();
    let poured = tokio::spawn(pour(write, 3, 32 << 20));
    let (length, _) = soon("the other flow", drain(read)).await;
    assert_eq!(length, 32 << 20);
    poured.await.expect("no panic");
    assert!(begin.elapsed() < SOON / 2, "{:?}", begin.elapsed());
    drop(stuck.backend);
}

async fn datagrams_keep_their_boundaries(by: By) {
    let mut stage = Stage::new(by).await;
    let ends = stage.datagrams().await;
    for [from, to] in [[&ends[0], &ends[1]], [&ends[1], &ends[0]]] {
        for length in [1, 0, 1200, 1, 1500, 9000, 65_507] {
            let sent = pattern(length);
            // Datagrams may be lost; two of one length look alike.
            let came = async {
                loop {
                    from.send(&sent).expect("it is open");
                    let wait = Duration::from_secs(1);
                    match tokio::time::timeout(wait, to.receive()).await {
                        Ok(Some(came)) if came.len() != length => {}
                        Ok(came) => return came,
                        Err(_) => {}
                    }
                }
            };
            let came = soon("a datagram", came).await.expect("it is open");
            assert!(came == sent, "{length} bytes");
        }
    }
}

async fn a_flow_of_datagrams_ends_with_either_end(by: By) {
    let mut stage = Stage::new(by).await;
    for first in [0, 1] {
        let [gateway, agent] = stage.datagrams().await;
        let (dropped, left) = if first == 0 { (gateway, agent) } else { (agent, gateway) };
        drop(dropped);
        let end = async { while left.receive().await.is_some() {} };
        soon("the end", end).await;
    }
}

async fn messages_pass_and_the_round_trip_is_measured(by: By) {
    let mut stage = Stage::new(by).await;
    assert_eq!(stage.gateway.peer.name(), "agent-0");
    assert_eq!(stage.gateway.hello.epoch, 1);
    assert_eq!(stage.agent.peer.name(), "fra1");
    assert_eq!(stage.agent.welcome.gateway, "fra1");
    let desired = ToGateway::Serving(Vec::new());
    stage.agent.control.send(desired.clone()).expect("it lives");
    assert_eq!(soon("a message", stage.gateway.control.receive()).await, Some(desired));
    stage.gateway.control.send(ToAgent::Report(Default::default())).expect("it lives");
    let report = soon("a message", stage.agent.control.receive()).await;
    assert_eq!(report, Some(ToAgent::Report(Default::default())));
    for status in [stage.gateway.control.status(), stage.agent.control.status()] {
        let measured = async {
            while status.round_trip().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon("a round trip", measured).await;
        assert!(status.round_trip() < Some(Duration::from_secs(1)));
    }
}

async fn a_newer_session_evicts_the_older(by: By) {
    let mut stage = Stage::new(by).await;
    let mut line = stage.line().await;
    let (mut newer, agent) = stage.again(2).await;
    assert_eq!(newer.hello.epoch, 2);
    let link = Arc::clone(&stage.gateway.link);
    stage.gateway.evict(2);
    let ended = soon("the older's end", stage.agent.control.status().until_ended()).await;
    assert_eq!(ended, Ended::Evicted { by: 2 });
    assert!(matches!(link.open(open("x", Protocol::Tcp)).await.err(), Some(OpenError::Ended)));
    // What is open goes on.
    send(&mut line.visitor, b"still").await;
    assert_eq!(receive(&mut line.backend, 5).await, b"still");
    // And the newer one works.
    agent.control.send(ToGateway::Drain).expect("it lives");
    assert_eq!(soon("a message", newer.control.receive()).await, Some(ToGateway::Drain));
}

async fn draining_lets_flows_go_on(by: By) {
    let mut stage = Stage::new(by).await;
    let mut line = stage.line().await;
    stage.agent.control.send(ToGateway::Drain).expect("it lives");
    assert_eq!(soon("a message", stage.gateway.control.receive()).await, Some(ToGateway::Drain));
    send(&mut line.visitor, b"still").await;
    assert_eq!(receive(&mut line.backend, 5).await, b"still");
    drop((line.visitor, line.backend));
    assert_eq!(ended(line.ending).await[0], Ending::Closed);
    assert_eq!(stage.gateway.control.status().ended(), None);
}

async fn a_closed_session_ends_its_flows(by: By) {
    let mut stage = Stage::new(by).await;
    let mut line = stage.line().await;
    stage.gateway.link.close();
    assert!(soon("the visitor's end", line.visitor.read_u8()).await.is_err());
    assert!(soon("the backend's end", line.backend.read_u8()).await.is_err());
    let ended = soon("the session's end", stage.agent.control.status().until_ended()).await;
    assert_eq!(ended, Ended::There);
    assert!(soon("the end of flows", stage.agent.flows.recv()).await.is_none());
}

async fn an_agent_that_is_gone_ends_the_session(by: By) {
    let stage = Stage::new(by).await;
    let link = Arc::clone(&stage.gateway.link);
    drop(stage.agent);
    let ended = soon("the session's end", stage.gateway.control.status().until_ended()).await;
    assert_eq!(ended, Ended::There);
    let refused = soon("an answer", link.open(open("x", Protocol::Tcp))).await;
    assert!(matches!(refused.err(), Some(OpenError::Ended)));
}

/// Packets vanish between gateway and agent, in both directions: nothing is closed.
#[test]
fn tls_notices_silence_within_six_seconds() {
    check_silence(By::Tls);
}

#[track_caller]
fn check_silence(by: By) {
    let lab = testkit::require(testkit::Lab::as_root("silence"));
    let Some(lab) = lab else { return };
    let (gateway, agent) =
        (lab.machine("gateway").expect("a machine"), lab.machine("agent").expect("a machine"));
    lab.link(&gateway, "eth0", &["10.0.0.1/24"], &agent, "eth0", &["10.0.0.2/24"]).expect("a wire");
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let trust = runtime().block_on(Trust::new());
    let (listens, address) = std::sync::mpsc::channel();
    let (up, is_up) = std::sync::mpsc::channel();
    let times = std::thread::scope(|scope| {
        let trust = &trust;
        let up_again = up.clone();
        let gateways = scope.spawn(|| {
            gateway.enter(|| {
                runtime().block_on(async {
                    let sockets = Sockets::bind(&[(Ipv4Addr::UNSPECIFIED, 0).into()]);
                    let mut acceptor = trust.accept(sockets.expect("a port"));
                    listens.send(acceptor.addresses()[0].port()).expect("somebody waits");
                    let session = session(acceptor.next().await);
                    let (mut visitor, plain) = pair().await;
                    let opened = session.link.open(open("held", Protocol::Tcp)).await;
                    let flow = opened.expect("it is accepted");
                    let relayed = tokio::spawn(flow.relay(plain, Bytes::new(), Arc::default()));
                    up.send(()).expect("somebody waits");
                    let ended = session.control.status().until_ended().await;
                    let died = Instant::now();
                    assert!(matches!(ended, Ended::Silent(_)), "{ended:?}");
                    assert!(soon("the visitor's end", visitor.read_u8()).await.is_err());
                    assert_eq!(relayed.await.expect("no panic"), Ending::Lost);
                    died
                })
            })
        });
        let port = address.recv_timeout(SOON).expect("the gateway listens");
        let agents = scope.spawn(move || {
            agent.enter(|| {
                runtime().block_on(async {
                    let settings = trust.dialling(([10, 0, 0, 1], port).into());
                    let mut session = by.dial(&settings, 1).await;
                    let (_backend, plain) = pair().await;
                    let incoming = session.flows.recv().await.expect("a flow");
                    let flow = incoming.answer.accept().await.expect("the gateway waits");
                    let relayed = tokio::spawn(flow.relay(plain, Bytes::new(), Arc::default()));
                    up_again.send(()).expect("somebody waits");
                    let ended = session.control.status().until_ended().await;
                    let died = Instant::now();
                    assert!(matches!(ended, Ended::Silent(_)), "{ended:?}");
                    assert_eq!(soon("its end", relayed).await.expect("no panic"), Ending::Lost);
                    died
                })
            })
        });
        for _ in 0..2 {
            is_up.recv_timeout(SOON).expect("a flow is open");
        }
        let hole = gateway.black_hole([10, 0, 0, 2].into()).expect("nft works here");
        let begin = Instant::now();
        let died = [gateways.join(), agents.join()]
            .map(|it| it.expect("no panic").expect("this is root").duration_since(begin));
        drop(hole);
        died
    });
    for time in times {
        assert!(time < Duration::from_secs(6), "{times:?}");
        assert!(time > Duration::from_secs(3), "too early to be sure: {times:?}");
    }
}

const RESET: Result<u8, io::ErrorKind> = Err(io::ErrorKind::ConnectionReset);
