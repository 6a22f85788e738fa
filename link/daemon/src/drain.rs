//! One switch that tells every task of a process to come to an end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

/// The side that ends things. Clones share one switch.
#[derive(Debug, Clone)]
pub struct Trigger(Arc<watch::Sender<bool>>);

/// The side that is told. Clones share one switch.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A new switch.
pub fn switch() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(Arc::new(sender)), Shutdown(receiver))
}

impl Trigger {
    /// Throws the switch.
    pub fn shut_down(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Ends when the switch is thrown, or when nobody is left who could throw it.
    pub async fn requested(&mut self) {
        // The error means that the trigger was dropped: nobody can ask any more.
        let _ = self.0.wait_for(|on| *on).await;
    }

    /// True once the switch is thrown.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// Waits for all tasks at most `limit`, then aborts the rest. Returns how many were aborted.
pub async fn join_all(mut tasks: JoinSet<()>, limit: Duration) -> usize {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_ok() {
        return 0;
    }
    let left = tasks.len();
    tasks.shutdown().await;
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_end_on_request_and_laggards_are_aborted() {
        let (trigger, shutdown) = switch();
        let mut tasks = JoinSet::new();
        let mut told = shutdown.clone();
        tasks.spawn(async move { told.requested().await });
        tasks.spawn(std::future::pending());
        assert!(!shutdown.is_requested());
        trigger.shut_down();
        assert!(shutdown.is_requested());
        assert_eq!(join_all(tasks, Duration::from_millis(20)).await, 1);
    }

    #[tokio::test]
    async fn a_dropped_trigger_counts_as_request() {
        let (trigger, mut shutdown) = switch();
        drop(trigger);
        shutdown.requested().await;
    }
}
