//! MED: the parts of the media layer, by HTTP and in calls.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::audio::{self, tone, tone_ms, tone_wav};
use e2e::tools::sh;
use e2e::world::{LIMIT, ended, hears, root, text};
use e2e::{Setup, World};
use tandem_rig::process::wait_for;
use tandem_rig::{MediaNode, Page, Recorded, http, ports};

/// A world whose control offers the parts of its media layer at a known address.
fn with_door(setup: Setup, more: &str) -> Result<(World, String)> {
    let listen = ports::tcp()?;
    let mut setup = setup;
    setup.control.more.push_str(&format!("\n[media]\nlisten = \"{listen}\"\n{more}\n"));
    Ok((setup.begin()?, format!("http://{listen}")))
}

fn query(base: &str, pairs: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    format!("{base}?{}", query.extend_pairs(pairs).finish())
}

/// What the cache answers for a URL of the application.
fn media(door: &str, url: &str, headers: &[(&str, &str)]) -> Result<http::Response> {
    http::get_with(&query(&format!("{door}/media"), &[("url", url)]), headers)
}

/// Milliseconds of a tone in a WAV file of any rate.
fn heard_ms(file: &[u8], hz: f64) -> Result<u32> {
    let (channels, rate_hz) = audio::read_wav(file)?;
    anyhow::ensure!(rate_hz == 8_000 && channels.len() == 1, "{rate_hz} Hz");
    Ok(tone_ms(&channels[0], hz))
}

fn counted(world: &World, name: &str) -> Result<f64> {
    http::metric(world.control.admin, &format!("tandem_media_{name}_total"))
}

#[test]
fn med_02_the_rules_of_the_cache() -> Result<()> {
    let wav = || Page::of("audio/wav", tone_wav(700.0, 300));
    let conditional = |field: &'static str, header: &'static str, value: &'static str| {
        Page::dynamic(move |request| match request.headers.get(field) {
            Some(sent) if sent == value => Page::status(304).header(header, value),
            _ => Page::of("audio/wav", tone_wav(700.0, 300)).header(header, value),
        })
    };
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const FAR: &str = "Fri, 01 Jan 2100 00:00:00 GMT";
    let failing = Arc::new(AtomicUsize::new(0));
    let fails_later = Page::dynamic(move |_| match failing.fetch_add(1, Ordering::SeqCst) {
        0 => Page::of("audio/wav", tone_wav(700.0, 300))
            .header("Cache-Control", "max-age=0, stale-if-error=60"),
        _ => Page::status(503),
    });
    let control = |value: &str| wav().header("Cache-Control", value);
    // Path, page, requests after three uses.
    let cases = [
        ("/max-age", control("max-age=600"), 1),
        ("/s-maxage", control("max-age=600, s-maxage=0"), 3),
        ("/expires", wav().header("Expires", FAR), 1),
        ("/expired", wav().header("Expires", DATE), 3),
        ("/aged", control("max-age=60").header("Age", "60"), 3),
        ("/no-cache", control("no-cache, max-age=600"), 3),
        ("/no-store", control("no-store, max-age=600"), 3),
        ("/private", control("private, max-age=600"), 3),
        ("/nothing", wav(), 3),
        ("/any", control("max-age=600").header("Vary", "*"), 3),
        ("/etag", conditional("if-none-match", "ETag", "\"v1\""), 3),
        ("/modified", conditional("if-modified-since", "Last-Modified", DATE), 3),
        ("/failing", fails_later, 3),
    ];
    let mut setup = Setup::with("<Play>/max-age</Play><Play>/private</Play>")?;
    for (path, page, _) in &cases {
        setup = setup.page(path, page.clone());
    }
    let (world, door) = with_door(setup, "")?;
    for _ in 0..3 {
        for (path, _, _) in &cases {
            let response = media(&door, &world.app.url(path), &[])?;
            assert_eq!((response.status, response.content_type.as_str()), (200, "audio/wav"));
            assert!(heard_ms(&response.body, 700.0)? >= 200, "{path}");
        }
    }
    for (path, _, expected) in &cases {
        assert_eq!(world.app.requests_for(path).len(), *expected, "{path}");
    }
    assert_eq!(counted(&world, "revalidated")?, 4.0);
    assert_eq!(counted(&world, "stale")?, 2.0);
    for (path, field) in [("/etag", "if-none-match"), ("/modified", "if-modified-since")] {
        let sent: Vec<_> =
            world.app.requests_for(path).iter().map(|r| r.headers.contains_key(field)).collect();
        assert_eq!(sent, [false, true, true], "{path}");
    }
    for path in ["/private", "/no-store"] {
        let asked = world.app.requests_for(path);
        assert!(asked.iter().all(|r| !r.headers.contains_key("if-none-match")), "{path}");
    }
    // A password in the URL makes the answer personal.
    let secret = world.app.url("/max-age").replace("http://", "http://user:secret@");
    let before = world.app.requests_for("/max-age").len();
    for _ in 0..2 {
        media(&door, &secret, &[])?;
    }
    assert_eq!(world.app.requests_for("/max-age").len(), before + 2);
    // In a call it is no other.
    world.call_through(hears(&[700.0]))?;
    assert_eq!(world.app.requests_for("/max-age").len(), before + 2);
    assert_eq!(world.app.requests_for("/private").len(), 4);
    world.finish()
}

#[test]
fn med_02_stale_media_plays_at_once_while_it_is_refreshed() -> Result<()> {
    let asked = Arc::new(AtomicUsize::new(0));
    let page = Page::dynamic(move |_| {
        let (hz, after_ms) = match asked.fetch_add(1, Ordering::SeqCst) {
            0 => (700.0, 0),
            _ => (900.0, 2_500),
        };
        Page::of("audio/wav", tone_wav(hz, 400))
            .header("Cache-Control", "max-age=1, stale-while-revalidate=600")
            .after(Duration::from_millis(after_ms))
    });
    let world = Setup::with("<Play>/news</Play>")?.page("/news", page).begin()?;
    world.call_through(hears(&[700.0]))?;
    e2e::pause_ms(1_200);
    let begun = Instant::now();
    let heard = world.call_through(hears(&[700.0]))?;
    let answered = heard.answered_ns.context("answered")?;
    let waited_ms =
        heard.first_heard_ns(700.0).context("tone")?.saturating_sub(answered) / 1_000_000;
    assert!(waited_ms < 1_000, "the old version plays at once, not after {waited_ms} ms");
    world.app.wait_for("/news", 2, LIMIT)?;
    wait_for("the refresh", LIMIT, || Ok(begun.elapsed() > Duration::from_millis(3_200)))?;
    world.call_through(hears(&[900.0]))?;
    world.finish()
}

#[test]
fn med_02_variants_are_kept_apart_by_vary() -> Result<()> {
    let page = Page::dynamic(|request: &Recorded| {
        let german = request.headers.get("accept-language").is_some_and(|l| l.starts_with("de"));
        Page::of("audio/wav", tone_wav(if german { 900.0 } else { 700.0 }, 300))
            .header("Vary", "Accept-Language")
            .header("Cache-Control", "max-age=600")
    });
    let setup = Setup::with("<Play>/spoken</Play>")?.page("/spoken", page);
    let (world, door) = with_door(setup, "")?;
    let url = world.app.url("/spoken");
    for _ in 0..2 {
        for (language, hz) in [("de-DE", 900.0), ("en-GB", 700.0), ("de", 900.0)] {
            let response = media(&door, &url, &[("Accept-Language", language)])?;
            assert!(heard_ms(&response.body, hz)? >= 200, "{language}");
        }
        // A call has no language of its own.
        world.call_through(hears(&[700.0]))?;
    }
    assert_eq!(world.app.requests_for("/spoken").len(), 4, "one for each variant");
    world.finish()
}

#[test]
fn med_02_what_is_processed_is_kept_across_a_restart() -> Result<()> {
    let verbs = "<Play>/kept</Play><Say>Kept for later.</Say><Play>/900.wav</Play>";
    let file = Page::of("audio/wav", audio::wav(16_000, 1, &tone(700.0, 400, 16_000)));
    let mut world =
        Setup::with(verbs)?.page("/kept", file.header("Cache-Control", "max-age=600")).begin()?;
    world.call_through(hears(&[700.0, 900.0]))?;
    assert_eq!((counted(&world, "transcodes")?, counted(&world, "speech_requests")?), (1.0, 1.0));
    // Speech has a SHA-256 of what makes it for a name, files one of their sound.
    let prompts = world.rig.folder().join("data-control-1/prompts/prompts");
    let mut names = Vec::new();
    for shard in std::fs::read_dir(&prompts)? {
        for file in std::fs::read_dir(shard?.path())? {
            names.push(file?.file_name().to_string_lossy().into_owned());
        }
    }
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|name| name.len() == 64 + ".wav".len()), "{names:?}");
    world.control.process.kill()?;
    world.rig.control_again(&mut world.control)?;
    wait_for("the edge to be connected", LIMIT, || {
        Ok(http::metric(world.control.admin, "tandem_link_connected_edges").unwrap_or(0.0) == 1.0)
    })?;
    world.call_through(hears(&[700.0, 900.0]))?;
    assert_eq!(world.app.requests_for("/kept").len(), 1);
    assert_eq!((counted(&world, "transcodes")?, counted(&world, "speech_requests")?), (0.0, 0.0));
    world.finish()
}

#[test]
fn med_02_a_thousand_requests_make_one_request_and_one_transcode() -> Result<()> {
    let mp3 = std::fs::read(root().join("tests/conformance/media/tone-700.mp3"))?;
    let page = Page::of("audio/mpeg", mp3).after(Duration::from_millis(2_500));
    let setup = Setup::with("<Play>/new.mp3</Play>")?
        .page("/new.mp3", page.header("Cache-Control", "max-age=60"));
    let (world, door) = with_door(setup, "")?;
    let phones: Vec<_> = (0..12).map(|_| world.call(hears(&[700.0]))).collect::<Result<_>>()?;
    let body = serde_json::json!({ "url": { "url": world.app.url("/new.mp3") } }).to_string();
    let keys = tokio::runtime::Runtime::new()?.block_on(async {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let post = client.post(format!("{door}/media")).body(body.clone());
            tasks.spawn(post.header("content-type", "application/json").send());
        }
        let mut keys = Vec::new();
        while let Some(response) = tasks.join_next().await {
            keys.push(response??.error_for_status()?.text().await?);
        }
        anyhow::Ok(keys)
    })?;
    assert_eq!(keys.len(), 1_000);
    assert!(keys.iter().all(|key| *key == keys[0] && key.contains("duration_ms")), "{}", keys[0]);
    for phone in &phones {
        ended(phone)?;
    }
    assert_eq!(world.app.requests_for("/new.mp3").len(), 1);
    assert_eq!((counted(&world, "origin_requests")?, counted(&world, "transcodes")?), (1.0, 1.0));
    world.finish()
}

/// Files of ffmpeg, each with a tone of 700 Hz that lasts a second: name, MIME type, options.
const FILES: [(&str, &str, &str); 17] = [
    ("a.mp3", "audio/mpeg", "-c:a libmp3lame"),
    ("wide.wav", "audio/wav", "-ar 48000 -ac 2"),
    ("adpcm.wav", "audio/x-wav", "-c:a adpcm_ima_wav"),
    ("a.flac", "audio/flac", "-c:a flac"),
    ("a.aiff", "audio/aiff", ""),
    ("vorbis.ogg", "audio/ogg", "-c:a libvorbis -ac 2"),
    ("opus.ogg", "application/ogg", "-c:a libopus -ac 2"),
    ("mono.opus", "audio/opus", "-c:a libopus -ac 1 -b:a 16k"),
    ("a.aac", "audio/aac", "-c:a aac"),
    ("a.m4a", "audio/mp4", "-c:a aac -ac 2"),
    ("alac.m4a", "audio/x-m4a", "-c:a alac"),
    ("film.mp4", "video/mp4", "VIDEO -c:v mpeg4 -c:a aac -shortest"),
    ("film.mov", "video/quicktime", "VIDEO -c:v mpeg4 -c:a aac -shortest"),
    ("opus.webm", "video/webm", "VIDEO -c:v libvpx -c:a libopus -shortest"),
    ("vorbis.webm", "video/webm", "VIDEO -c:v libvpx -c:a libvorbis -shortest"),
    // The bytes decide.
    ("really-mp4.bin", "application/octet-stream", "-c:a aac -f mp4"),
    ("really-opus.mp3", "audio/mpeg", "-c:a libopus -f ogg"),
];

fn make_file(folder: &Path, name: &str, options: &str) -> Result<Vec<u8>> {
    let video = "-f lavfi -i testsrc=duration=1:size=64x64:rate=10";
    let (video, options) = match options.strip_prefix("VIDEO") {
        Some(options) => (video, options),
        None => ("", options),
    };
    let path = folder.join(name);
    sh(&format!(
        "ffmpeg -loglevel error -y -f lavfi -i sine=frequency=700:duration=1:sample_rate=48000 \
         {video} -af volume=6dB {options} {}",
        path.display()
    ))
    .with_context(|| name.to_owned())?;
    Ok(std::fs::read(path)?)
}

#[test]
fn med_03_every_usual_file_is_heard_at_the_phone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut setup = Setup::new()?.page("/fallback", Page::verbs("<Reject/>"));
    for (index, (name, mime, options)) in FILES.iter().enumerate() {
        let bytes = make_file(folder.path(), name, options)?;
        setup.app.page(&format!("/{name}"), Page::of(mime, bytes));
        setup.app.page(&format!("/play-{name}"), Page::verbs(&format!("<Play>/{name}</Play>")));
        setup = setup.number(&format!("+155530{index:02}"), &format!("/play-{name}"));
    }
    let (world, door) = with_door(setup, "")?;
    for (group, files) in FILES.chunks(6).enumerate() {
        let phone = |at: usize| {
            let number = format!("+155530{:02}", group * 6 + at);
            Ok(world.bank.add(world.caller(&number, hears(&[700.0])))?)
        };
        let phones: Vec<_> = (0..files.len()).map(phone).collect::<Result<_>>()?;
        for (phone, (name, ..)) in phones.iter().zip(files) {
            let report = ended(phone).with_context(|| (*name).to_owned())?;
            let bursts = report.bursts.iter();
            let ms: u64 = bursts.map(|b| (b.end_ns - b.onset_ns) / 1_000_000).sum();
            assert!((880..1_200).contains(&ms), "{name}: {ms} ms");
        }
    }
    // The same file in the format of each leg, with the type of what it has become.
    for (name, ..) in FILES {
        let url = world.app.url(&format!("/{name}"));
        for (format, mime) in [("wav-8000", "audio/wav"), ("pcmu", "audio/basic")] {
            let wanted = [("url", url.as_str()), ("format", format)];
            let response = http::get(&query(&format!("{door}/transcode"), &wanted), None)?;
            assert_eq!((response.status, response.content_type.as_str()), (200, mime), "{name}");
        }
    }
    world.finish()
}

#[test]
fn med_03_the_proxy_updates_the_type_and_leaves_what_is_suitable() -> Result<()> {
    let suitable = tone_wav(700.0, 1_000);
    // A chunk that a decoder would drop: nothing may touch the file.
    let mut odd = suitable.clone();
    odd.extend(b"LIST\x04\0\0\0INFO");
    let ulaw: Vec<u8> = tone(700.0, 1_000, 8_000)
        .into_iter()
        .map(media_core::codec::g711::encode_ulaw_sample)
        .collect();
    let setup = Setup::with("<Play>/page.html</Play>")?
        .page("/fallback", Page::verbs("<Play>/900.wav</Play>"))
        .page("/ready.wav", Page::of("audio/x-wav", odd.clone()).header("ETag", "\"1\""))
        .page("/ready.ulaw", Page::of("audio/basic", ulaw.clone()))
        .page("/page.html", Page::of("text/html", "<html>"))
        .page("/junk.mp3", Page::of("audio/mpeg", vec![0x55; 5_000]));
    let (world, door) = with_door(setup, "")?;
    let ask = |path: &str, format: &str| {
        let wanted = [("url", world.app.url(path)), ("format", format.to_owned())];
        let wanted = wanted.each_ref().map(|(name, value)| (*name, value.as_str()));
        http::get(&query(&format!("{door}/transcode"), &wanted), None)
    };
    let unchanged = ask("/ready.wav", "wav-8000")?;
    assert_eq!((unchanged.body, unchanged.content_type.as_str()), (odd, "audio/wav"));
    assert_eq!(ask("/ready.ulaw", "pcmu")?.body, ulaw);
    assert_eq!(counted(&world, "transcodes")?, 0.0);
    for rate_hz in [16_000, 48_000] {
        let response = ask("/ready.wav", &format!("wav-{rate_hz}"))?;
        let (channels, rate) = audio::read_wav(&response.body)?;
        assert_eq!(rate, rate_hz);
        assert_eq!(channels[0].len(), rate_hz as usize, "a second");
        let crossings = channels[0].windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
        assert!((698..=701).contains(&crossings), "{crossings} periods");
    }
    let alaw = ask("/ready.wav", "pcma")?;
    assert_eq!((alaw.body.len(), alaw.content_type.as_str()), (8_000, "audio/x-alaw-basic"));
    let decoded: Vec<i16> =
        alaw.body.iter().map(|code| media_core::codec::g711::decode_alaw_sample(*code)).collect();
    assert!(tone_ms(&decoded, 700.0) >= 950);
    // The proxy's cache rules are the origin's.
    let url = query(&format!("{door}/transcode"), &[("url", &world.app.url("/ready.wav"))]);
    assert_eq!(http::get_with(&url, &[("If-None-Match", "\"2\"")])?.status, 200);
    let asked = world.app.requests_for("/ready.wav");
    let sent = asked.last().and_then(|r| r.headers.get("if-none-match"));
    assert_eq!(sent.map(String::as_str), Some("\"2\""));
    for path in ["/page.html", "/junk.mp3"] {
        let refused = ask(path, "wav-8000")?;
        assert_eq!(
            (refused.status, refused.json()?["code"].as_u64()),
            (415, Some(13_420)),
            "{path}"
        );
    }
    // In a call it is an alert, and the fallback goes on.
    world.call_through(hears(&[900.0]))?;
    let alerts = world.alerts()?;
    assert!(alerts.iter().any(|alert| text(alert, "error_code") == "13420"), "{alerts:?}");
    world.finish()
}

/// Conversions and texts that a process has worked on.
fn work_of(node: &MediaNode) -> Result<f64> {
    http::metric(node.admin, "tandem_media_transcodes_total")
}

#[test]
fn med_01_parts_run_in_processes_of_their_own() -> Result<()> {
    let rig = tandem_rig::Rig::temporary(&e2e::world::program())?;
    let parts = ["transcoder", "speech"];
    let mut nodes = [rig.media("media-1", &parts, "")?, rig.media("media-2", &parts, "")?];
    // What a part does not do, it does not answer.
    assert_eq!(http::get(&format!("{}/media?text=x", nodes[0].url), None)?.status, 404);
    let urls = |path: &str| nodes.iter().map(|n| format!("{}{path}", n.url)).collect::<Vec<_>>();
    let more = format!("transcoder = {:?}\nspeech = {:?}\n", urls(""), urls("/speech"));
    let page = |hz| Page::of("audio/wav", audio::wav(16_000, 1, &tone(hz, 800, 16_000)));
    let mut setup = Setup::new()?.page("/fallback", Page::verbs("<Reject/>"));
    for index in 0..8 {
        let verbs = format!("<Say>This is text number {index}.</Say><Play>/file-{index}</Play>");
        setup.app.page(&format!("/start-{index}"), Page::verbs(&verbs));
        setup.app.page(&format!("/file-{index}"), page(700.0));
        setup = setup.number(&format!("+155540{index:02}"), &format!("/start-{index}"));
    }
    setup.control.more.push_str("\n[speech]\nengine = \"off\"\n");
    let (world, _) = with_door(setup, &more)?;
    let call = |index: usize| {
        let phone = world.caller(&format!("+155540{index:02}"), hears(&[700.0]));
        let report = ended(&world.bank.add(phone)?)?;
        // Something was said before the tone.
        let tone_at = report.first_heard_ns(700.0).context("tone")?;
        let spoken = report.bursts.iter().take_while(|burst| burst.onset_ns < tone_at);
        anyhow::ensure!(spoken.count() >= 1, "{:?}", report.bursts);
        Ok(())
    };
    for index in 0..4 {
        call(index)?;
    }
    assert_eq!(counted(&world, "transcodes")?, 0.0, "control does none of it");
    let work = [work_of(&nodes[0])?, work_of(&nodes[1])?];
    assert_eq!(work, [2.0, 2.0], "spread over both");
    // One dies, with requests on their way to it.
    nodes[0].process.kill()?;
    for index in 4..8 {
        call(index)?;
    }
    assert_eq!(work_of(&nodes[1])?, 6.0, "the dead one is passed over");
    assert_eq!(counted(&world, "failures")?, 0.0);
    world.finish()
}

#[test]
fn med_01_each_part_is_reachable_on_its_own_and_the_cache_can_be_elsewhere() -> Result<()> {
    // In one process by default.
    let setup = Setup::with("<Play>/700.wav</Play>")?;
    let (world, door) = with_door(setup, "")?;
    let said = http::post_body(
        &format!("{door}/speech"),
        "application/json",
        br#"{"text": "Good morning", "voice": "woman", "language": "en-US", "rate": 1.0}"#,
    )?;
    assert_eq!((said.status, said.content_type.as_str()), (200, "audio/wav"));
    let (channels, rate_hz) = audio::read_wav(&said.body)?;
    assert!(rate_hz == 8_000 && audio::loud_ms(&channels[0]) >= 400);
    let converted = http::post_body(
        &format!("{door}/transcode?format=pcmu"),
        "audio/wav",
        &tone_wav(700.0, 500),
    )?;
    assert_eq!((converted.status, converted.body.len()), (200, 4_000));
    let spoken = [("text", "Good morning"), ("voice", "woman"), ("language", "en-US")];
    let kept = http::get(&query(&format!("{door}/media"), &spoken), None)?;
    assert_eq!((kept.status, kept.body), (200, said.body));
    world.finish()?;

    // A cache that two control nodes could share.
    let rig = tandem_rig::Rig::temporary(&e2e::world::program())?;
    let cache = rig.media("media-1", &["cache", "transcoder", "speech"], "")?;
    let page = Page::of("audio/wav", audio::wav(16_000, 1, &tone(900.0, 800, 16_000)));
    let setup = Setup::with("<Say>Hello there.</Say><Play>/file</Play>")?
        .page("/file", page.header("Cache-Control", "max-age=60"));
    let (world, _) = with_door(setup, &format!("cache = [{:?}]\n", cache.url))?;
    for _ in 0..2 {
        world.call_through(hears(&[900.0]))?;
    }
    assert_eq!(world.app.requests_for("/file").len(), 1);
    assert_eq!(work_of(&cache)?, 1.0);
    assert_eq!(counted(&world, "transcodes")?, 0.0);
    world.finish()
}
