//! The media layer against real HTTP servers on loopback and a real speech engine.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use control_media_layer::speech::{Engine, SpeechConfig, SpeechService};
use control_media_layer::{MediaConfig, MediaLayer, MediaRequest, Spoken};
use media_core::container::wav;
use media_core::units::SampleRate;
use tokio::sync::Semaphore;

struct Origin {
    requests: AtomicUsize,
    conditional: AtomicUsize,
    cache_control: Mutex<&'static str>,
    etag: Mutex<&'static str>,
    samples: Mutex<Vec<i16>>,
    seen: Mutex<Vec<String>>,
    gate: Semaphore,
}

fn tone(count: usize) -> Vec<i16> {
    (0..count).map(|n| ((n as f64 * 0.3456).sin() * 8000.0) as i16).collect()
}

async fn audio(State(origin): State<Arc<Origin>>, headers: HeaderMap) -> Response {
    origin.requests.fetch_add(1, Ordering::SeqCst);
    origin.seen.lock().unwrap().push(format!("{headers:?}"));
    let etag = *origin.etag.lock().unwrap();
    let policy = *origin.cache_control.lock().unwrap();
    let common = [(header::ETAG, etag), (header::CACHE_CONTROL, policy)];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|value| value == etag) {
        origin.conditional.fetch_add(1, Ordering::SeqCst);
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let file = wav::write_pcm16(SampleRate::HZ_8000, &origin.samples.lock().unwrap());
    ([(header::CONTENT_TYPE, "audio/x-wav")], common, file).into_response()
}

async fn slow(State(origin): State<Arc<Origin>>, headers: HeaderMap) -> Response {
    let permit = origin.gate.acquire().await.unwrap();
    permit.forget();
    audio(State(origin), headers).await
}

async fn data(Path(name): Path<String>) -> Response {
    let (mime, bytes): (&str, &'static [u8]) = match name.as_str() {
        "tone.mp3" => ("audio/mpeg", include_bytes!("data/tone.mp3")),
        "tone.ogg" => ("application/ogg", include_bytes!("data/tone.ogg")),
        "tone.flac" => ("audio/flac", include_bytes!("data/tone.flac")),
        "tone.aiff" => ("audio/x-aiff", include_bytes!("data/tone.aiff")),
        "float.wav" => ("audio/wav", include_bytes!("data/tone-float.wav")),
        "lying.wav" => ("audio/wav", include_bytes!("data/tone.mp3")),
        "page.html" => ("text/html", b"<html>"),
        "junk.wav" => ("audio/wav", b"certainly not audio"),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    ([(header::CONTENT_TYPE, mime)], bytes).into_response()
}

async fn serve() -> (SocketAddr, Arc<Origin>) {
    let origin = Arc::new(Origin {
        requests: AtomicUsize::new(0),
        conditional: AtomicUsize::new(0),
        cache_control: Mutex::new("max-age=3600"),
        etag: Mutex::new("\"1\""),
        samples: Mutex::new(tone(4000)),
        seen: Mutex::default(),
        gate: Semaphore::new(0),
    });
    let router = Router::new()
        .route("/a.wav", get(audio))
        .route("/slow.wav", get(slow))
        .route("/data/{name}", get(data))
        .route("/large", get(|| async { Bytes::from(vec![0u8; 3 << 20]) }))
        .route("/loop", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/loop")]) }))
        .route("/moved", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/a.wav")]) }))
        .with_state(Arc::clone(&origin));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, origin)
}

fn layer(folder: &tempfile::TempDir, change: impl FnOnce(&mut MediaConfig)) -> MediaLayer {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = MediaConfig::at(folder.path());
    config.source_bytes_max = 2 << 20;
    config.connect_timeout = Duration::from_millis(500);
    config.total_timeout = Duration::from_secs(5);
    change(&mut config);
    MediaLayer::new(config).unwrap()
}

fn url(address: SocketAddr, path: &str) -> MediaRequest {
    MediaRequest::url(format!("http://{address}{path}"))
}

#[tokio::test]
async fn med_01_a_url_becomes_a_prompt_and_its_bytes_can_be_had_by_key() {
    let (address, origin) = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let media = layer(&folder, |_| {});
    let prompt = media.get(url(address, "/a.wav?x=1")).await.unwrap();
    assert_eq!(prompt.duration_ms, 500);
    assert_eq!(prompt.key.0.len(), 64);
    let file = media.open(&prompt.key).await.unwrap();
    assert_eq!(wav::read(&file).unwrap(), (SampleRate::HZ_8000, tone(4000)));
    assert_eq!(prompt.bytes, file.len() as u64);
    assert!(media.open(&"0".repeat(64).as_str().into_key()).await.is_none());
    // A redirect is followed, and the same audio has the same key.
    assert_eq!(media.get(url(address, "/moved")).await.unwrap(), prompt);
    let seen = origin.seen.lock().unwrap().join("\n");
    assert!(!seen.contains("twilio") && !seen.contains("authorization"), "{seen}");
}

trait IntoKey {
    fn into_key(self) -> link_proto::media::PromptKey;
}

impl IntoKey for &str {
    fn into_key(self) -> link_proto::media::PromptKey {
        link_proto::media::PromptKey(self.to_owned())
    }
}

#[tokio::test]
async fn med_02_fresh_is_not_asked_stale_is_asked_once_and_change_is_seen() {
    let (address, origin) = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let media = layer(&folder, |_| {});
    let first = media.get(url(address, "/a.wav")).await.unwrap();
    assert_eq!(media.get(url(address, "/a.wav")).await.unwrap(), first);
    assert_eq!(origin.requests.load(Ordering::SeqCst), 1);
    assert_eq!(media.stats().hits, 1);
    drop(media);
    // Another process with the same folder knows it as well.
    let media = layer(&folder, |_| {});
    assert_eq!(media.get(url(address, "/a.wav")).await.unwrap(), first);
    assert_eq!(origin.requests.load(Ordering::SeqCst), 1);

    *origin.cache_control.lock().unwrap() = "no-cache";
    for _ in 0..2 {
        assert_eq!(media.get(url(address, "/a.wav?stale")).await.unwrap(), first);
    }
    assert_eq!(origin.requests.load(Ordering::SeqCst), 3);
    assert_eq!(origin.conditional.load(Ordering::SeqCst), 1);
    assert_eq!(media.stats().revalidated, 1);

    *origin.etag.lock().unwrap() = "\"2\"";
    *origin.samples.lock().unwrap() = tone(8000);
    let changed = media.get(url(address, "/a.wav?stale")).await.unwrap();
    assert_eq!(changed.duration_ms, 1000);
    assert_ne!(changed.key, first.key);
    assert!(media.open(&first.key).await.is_some(), "a call may still play it");
}

#[tokio::test]
async fn med_02_no_store_is_not_kept_beyond_the_use() {
    let (address, origin) = serve().await;
    *origin.cache_control.lock().unwrap() = "no-store";
    let folder = tempfile::tempdir().unwrap();
    let media = layer(&folder, |_| {});
    let prompt = media.get(url(address, "/a.wav")).await.unwrap();
    assert!(media.open(&prompt.key).await.is_some());
    media.sweep(SystemTime::now());
    assert!(media.open(&prompt.key).await.is_some(), "the call may still play it");
    media.sweep(SystemTime::now() + Duration::from_secs(601));
    assert!(media.open(&prompt.key).await.is_none());
    assert_eq!(media.stats().cache_bytes, 0);
    media.get(url(address, "/a.wav")).await.unwrap();
    assert_eq!(origin.requests.load(Ordering::SeqCst), 2);
    assert_eq!(origin.conditional.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn med_02_a_thousand_at_once_make_one_request() {
    let (address, origin) = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let media = layer(&folder, |_| {});
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let media = media.clone();
        waiting.spawn(async move { media.get(url(address, "/slow.wav")).await });
    }
    while media.stats().requests < 1000 {
        tokio::task::yield_now().await;
    }
    origin.gate.add_permits(1);
    let mut keys = std::collections::BTreeSet::new();
    while let Some(result) = waiting.join_next().await {
        keys.insert(result.unwrap().unwrap().key);
    }
    assert_eq!(keys.len(), 1);
    assert_eq!(origin.requests.load(Ordering::SeqCst), 1);
    assert_eq!(media.stats().collapsed, 999);
}

#[tokio::test]
async fn med_03_formats_are_found_by_their_bytes() {
    let (address, _) = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let media = layer(&folder, |_| {});
    for name in ["tone.mp3", "tone.ogg", "tone.flac", "tone.aiff", "float.wav", "lying.wav"] {
        let prompt = media.get(url(address, &format!("/data/{name}"))).await.unwrap();
        let (rate, samples) = wav::read(&media.open(&prompt.key).await.unwrap()).unwrap();
        assert_eq!(rate, SampleRate::HZ_8000, "{name}");
        // Lossy formats pad.
        assert!((440..=620).contains(&prompt.duration_ms), "{name}: {}", prompt.duration_ms);
        let middle = &samples[1000..3000];
        let crossings = middle.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
        assert!((108..=112).contains(&crossings), "{name}: {crossings} periods of 110");
    }
}

#[tokio::test]
async fn failures_have_their_codes() {
    let (address, _) = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let media = layer(&folder, |_| {});
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = closed.local_addr().unwrap();
    drop(closed);
    let other = |text: &str| MediaRequest::url(text);
    let speech = |text: String| {
        MediaRequest::Speech(Spoken { text, voice: "man".into(), language: "en-US".into() })
    };
    for (request, code) in [
        (url(address, "/data/none"), 11200),
        (url(address, "/data/page.html"), 13420),
        (url(address, "/data/junk.wav"), 13420),
        (url(address, "/large"), 11750),
        (url(address, "/loop"), 11215),
        (url(refused, "/"), 11202),
        (other("http://name.invalid/x"), 11210),
        (other("not a url"), 11100),
        (other("file:///etc/passwd"), 11100),
        (speech("  <break/> ".replace("<break/>", "")), 13520),
        (speech("a".repeat(5000)), 13521),
        (speech("hello".into()), 12400),
    ] {
        let error = media.get(request.clone()).await.unwrap_err();
        assert_eq!(error.code, code, "{request:?}: {error}");
    }
    assert_eq!(media.stats().failures, 12);
}

#[tokio::test]
async fn med_05_speech_is_made_once_and_sounds() {
    let engines = Engine::installed(&std::env::var_os("PATH").unwrap_or_default());
    assert!(!engines.is_empty(), "install flite or espeak-ng to run the tests");
    let service = SpeechService::start(&SpeechConfig::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let media = layer(&folder, |config| config.speech_urls = vec![service.url()]);
    let say = |text: &str| {
        let (voice, language) = ("woman".into(), "en-US".into());
        MediaRequest::Speech(Spoken { text: text.into(), voice, language })
    };
    let hello = media.get(say("Hello; $(reboot) \"and\" `welcome`")).await.unwrap();
    assert!((500..15_000).contains(&hello.duration_ms), "{}", hello.duration_ms);
    let (_, samples) = wav::read(&media.open(&hello.key).await.unwrap()).unwrap();
    let loud = samples.iter().filter(|s| s.unsigned_abs() > 1000).count();
    assert!(loud > samples.len() / 20, "{loud} of {}", samples.len());
    assert_eq!(media.get(say("Hello; $(reboot) \"and\" `welcome`")).await.unwrap(), hello);
    assert_eq!(media.stats().speech_requests, 1);

    let one = media.get(say("one")).await.unwrap().duration_ms;
    let two = media.get(say("two")).await.unwrap().duration_ms;
    let paused = media.get(say("one<break time='2s'/>two")).await.unwrap().duration_ms;
    assert!(paused.abs_diff(one + two + 2000) <= 2, "{one} {two} {paused}");
}

#[tokio::test]
async fn a_speech_service_without_engine_says_so() {
    let config = SpeechConfig { engines: vec![Engine::Festival], ..Default::default() };
    let service = SpeechService::start(&config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let media = layer(&folder, |config| config.speech_urls = vec![service.url()]);
    let request = MediaRequest::Speech(Spoken {
        text: "Hallo".into(),
        voice: "man".into(),
        language: "de-DE".into(),
    });
    let error = media.get(request).await.unwrap_err();
    assert_eq!(error.code, 12400);
    assert!(error.message.contains("de-DE"), "{error}");
}
