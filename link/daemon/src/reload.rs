//! A new configuration for a process that runs: asked for by SIGHUP or by `POST /reload` at the admin
//! port. The process decides what it takes over; a file that is wrong changes nothing.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait.
const REQUESTS_MAX: usize = 8;
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What was taken over, in words; or why nothing was changed.
pub type Outcome = Result<String, String>;

/// The side that asks. Clones share it.
#[derive(Debug, Clone)]
pub struct Reload(mpsc::Sender<oneshot::Sender<Outcome>>);

/// The side that is asked.
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<oneshot::Sender<Outcome>>);

/// Both sides.
pub fn channel() -> (Reload, Requests) {
    let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
    (Reload(sender), Requests(receiver))
}

impl Reload {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn request(&self) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let nobody = |_| "this process takes no new configuration while it runs".to_owned();
        self.0
            .try_send(reply)
            .map_err(|error| error.to_string())
            .map_err(|why| format!("this process takes no new configuration now: {why}"))?;
        match tokio::time::timeout(ANSWER_MAX, answer).await {
            Ok(answer) => answer.map_err(|gone| nobody(gone.to_string()))?,
            Err(_) => Err(nobody(String::new())),
        }
    }

    /// Asks at every SIGHUP, as long as the process lives.
    ///
    /// # Errors
    /// If the handler cannot be installed.
    pub async fn on_hangup(self) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        while hangup.recv().await.is_some() {
            // The outcome is logged where it is decided.
            let _ = self.request().await;
        }
        Ok(())
    }
}

impl Requests {
    /// The next one to be answered; `None` when nobody can ask any more.
    pub async fn next(&mut self) -> Option<oneshot::Sender<Outcome>> {
        self.0.recv().await
    }
}

/// Collects the keys that differ although they cannot change while the process runs.
#[derive(Debug, Default)]
pub struct Fixed(Vec<&'static str>);

impl Fixed {
    /// Notes the key if the value differs, and keeps the old one.
    pub fn keep<T: PartialEq + Clone>(&mut self, key: &'static str, old: &T, new: &mut T) {
        if old != new {
            self.0.push(key);
            new.clone_from(old);
        }
    }

    /// What to tell whoever asked.
    pub fn told(&self) -> String {
        if self.0.is_empty() {
            return "the new configuration is in force\n".to_owned();
        }
        format!(
            "the new configuration is in force, but for what cannot change while the process runs: \
             {}; that needs a restart\n",
            self.0.join(", ")
        )
    }
}

/// Logs an outcome and returns it.
pub fn logged(outcome: Outcome) -> Outcome {
    match &outcome {
        Ok(told) if told.contains("cannot change") => tracing::warn!("{}", told.trim_end()),
        Ok(told) => tracing::info!("{}", told.trim_end()),
        Err(why) => tracing::error!("nothing is changed: {}", why.trim_end()),
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_answered_and_fixed_keys_are_named() {
        let (reload, mut requests) = channel();
        let server = tokio::spawn(async move {
            let mut fixed = Fixed::default();
            let (old, mut new) = (1, 2);
            fixed.keep("sip.listen", &old, &mut new);
            assert_eq!(new, 1);
            let reply = requests.next().await.unwrap();
            reply.send(logged(Ok(fixed.told()))).unwrap();
        });
        let told = reload.request().await.unwrap();
        assert!(told.contains("sip.listen") && told.contains("restart"), "{told}");
        server.await.unwrap();
        assert!(reload.request().await.is_err(), "nobody is there to answer");
        assert!(!Fixed::default().told().contains("but for"));
    }
}
