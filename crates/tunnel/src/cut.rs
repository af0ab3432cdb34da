//! A cut: given once, it ends whatever waits for it.
//!
//! Every flow waits for the end of its session, and is woken for each of its bytes: then it costs a
//! look at one flag, and nothing is registered anew.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// A cut, given or not.
#[derive(Default)]
pub struct Cut {
    given: AtomicBool,
    waiting: Mutex<Slab<Waker>>,
}

impl Cut {
    /// Whether it was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    /// Gives it. Once is enough.
    pub fn give(&self) {
        self.given.store(true, Ordering::Release);
        // Whoever registers from now on sees under the lock that it was given.
        let waiting = std::mem::take(&mut *self.lock());
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// Waits until it is given.
    pub fn wait(&self) -> Waiting<'_> {
        Waiting { cut: self, registered: None }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cut").field("given", &self.is_given()).finish_non_exhaustive()
    }
}

/// Completes when the cut is given.
#[must_use = "does nothing unless it is polled"]
#[derive(Debug)]
pub struct Waiting<'a> {
    cut: &'a Cut,
    /// Where the waker is registered, and which one.
    registered: Option<(usize, Waker)>,
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut.is_given() {
            return Poll::Ready(());
        }
        if self.registered.as_ref().is_some_and(|(_, it)| it.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let mut waiting = self.cut.lock();
        if self.cut.is_given() {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let place = match &self.registered {
            Some((place, _)) => {
                if let Some(registered) = waiting.get_mut(*place) {
                    registered.clone_from(&waker);
                }
                *place
            }
            None => waiting.insert(waker.clone()),
        };
        drop(waiting);
        self.registered = Some((place, waker));
        Poll::Pending
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some((place, _)) = self.registered.take() {
            let mut waiting = self.cut.lock();
            // Once the cut was given nobody registers any more, and the place is empty.
            waiting.try_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(waiting: &mut Waiting<'_>, count: &Arc<Count>) -> Poll<()> {
        let waker = Waker::from(Arc::clone(count));
        Pin::new(waiting).poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn everybody_who_waits_is_woken_once() {
        let (cut, counts) = (Cut::default(), [(); 3].map(|()| Arc::new(Count::default())));
        let mut waiting = [(); 3].map(|()| cut.wait());
        for _again in 0..2 {
            for (waiting, count) in waiting.iter_mut().zip(&counts) {
                assert_eq!(poll(waiting, count), Poll::Pending);
            }
        }
        cut.give();
        cut.give();
        for (waiting, count) in waiting.iter_mut().zip(&counts) {
            assert_eq!(count.0.load(Ordering::Relaxed), 1);
            assert_eq!(poll(waiting, count), Poll::Ready(()));
        }
        assert_eq!(poll(&mut cut.wait(), &counts[0]), Poll::Ready(()), "who comes late");
    }

    #[test]
    fn who_moved_to_another_task_is_woken_there() {
        let (cut, old, new) = (Cut::default(), Arc::default(), Arc::default());
        let mut waiting = cut.wait();
        assert_eq!(poll(&mut waiting, &old), Poll::Pending);
        assert_eq!(poll(&mut waiting, &new), Poll::Pending);
        cut.give();
        assert_eq!(old.0.load(Ordering::Relaxed), 0);
        assert_eq!(new.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn who_waits_no_longer_takes_no_room() {
        let (cut, count) = (Cut::default(), Arc::default());
        let mut stays = cut.wait();
        assert_eq!(poll(&mut stays, &count), Poll::Pending);
        for _ in 0..100 {
            assert_eq!(poll(&mut cut.wait(), &count), Poll::Pending);
        }
        assert_eq!(cut.lock().len(), 1);
        assert!(cut.lock().capacity() < 10);
    }
}
