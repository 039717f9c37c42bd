//! Who shows the answer to a request: a window, a frame, or nobody.
//!
//! A window can be led to another address and shows a page. A program wants a status and JSON.
//! Browsers say by Fetch Metadata (<https://www.w3.org/TR/fetch-metadata/>) what they do. Older
//! ones do not send it, so what they accept decides.

/// Who shows the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A window or tab.
    Window,
    /// A frame inside of a page.
    Frame,
    /// A script, an image, a tunnel, a program.
    Program,
}

/// What a request says about its audience.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signs<'a> {
    /// `Sec-Fetch-Mode`
    pub mode: Option<&'a [u8]>,
    /// `Sec-Fetch-Dest`
    pub dest: Option<&'a [u8]>,
    /// Whether `Accept` lists HTML.
    pub accepts_html: bool,
    /// `X-Requested-With`. Old Android apps name themselves there when they show a page.
    pub requested_with: Option<&'a [u8]>,
    /// Whether it is the handshake of a WebSocket.
    pub websocket: bool,
}

/// Says who shows the answer.
pub fn audience(signs: &Signs<'_>) -> Audience {
    if signs.websocket {
        return Audience::Program;
    }
    match (signs.mode, signs.dest) {
        // No script can send this mode. A service worker that passes a navigation on sends it with
        // the destination `empty`.
        (Some(b"navigate"), Some(b"iframe" | b"frame" | b"fencedframe" | b"embed" | b"object")) => {
            Audience::Frame
        }
        (Some(b"navigate"), _) => Audience::Window,
        (Some(_), _) => Audience::Program,
        (None, _) => {
            let script =
                signs.requested_with.is_some_and(|library| library.eq_ignore_ascii_case(b"XMLHttpRequest"));
            if signs.accepts_html && !script { Audience::Window } else { Audience::Program }
        }
    }
}

/// Whether an `Accept` field lists HTML (RFC 9110 section 12.5.1).
pub fn accepts_html(accept: &[u8]) -> bool {
    accept.split(|byte| *byte == b',').any(|range| {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let kind = parts.next().unwrap_or_default();
        let html = [&b"text/html"[..], b"application/xhtml+xml"];
        html.iter().any(|html| kind.eq_ignore_ascii_case(html)) && !parts.any(is_zero_weight)
    })
}

fn is_zero_weight(parameter: &[u8]) -> bool {
    let weight = match parameter {
        [b'q' | b'Q', b'=', weight @ ..] => weight.trim_ascii(),
        _ => return false,
    };
    weight.starts_with(b"0") && weight.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

/// Which page sent a request (`Sec-Fetch-Site`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FetchSite {
    /// The request does not say.
    #[default]
    Unsaid,
    /// A page of this origin.
    SameOrigin,
    /// No page: the user typed the address or followed a bookmark.
    User,
    /// Another origin, or a word that is not known.
    Other,
}

impl FetchSite {
    /// Reads `Sec-Fetch-Site`.
    pub fn read(field: &[u8]) -> Self {
        match field {
            b"same-origin" => Self::SameOrigin,
            b"none" => Self::User,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    const CHROME: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,\
                          */*;q=0.8,application/signed-exchange;v=b3;q=0.7";

    /// What clients send, as recorded.
    struct Sent {
        who: &'static str,
        mode: &'static str,
        dest: &'static str,
        accept: &'static str,
        requested_with: &'static str,
        websocket: bool,
        expected: Audience,
    }

    const fn sent(
        who: &'static str,
        mode: &'static str,
        dest: &'static str,
        accept: &'static str,
        expected: Audience,
    ) -> Sent {
        Sent { who, mode, dest, accept, requested_with: "", websocket: false, expected }
    }

    use Audience::{Frame, Program, Window};

    const TABLE: &[Sent] = &[
        sent("Chrome, a link or a typed address", "navigate", "document", CHROME, Window),
        sent("Firefox, a link", "navigate", "document", HTML, Window),
        sent("Safari 17, a link", "navigate", "document", HTML, Window),
        sent("Chrome, a form that is posted", "navigate", "document", CHROME, Window),
        sent("Chrome, a service worker passes a navigation on", "navigate", "empty", CHROME, Window),
        sent("Chrome, a speculative prefetch of a page", "navigate", "document", CHROME, Window),
        sent("a new destination of navigations", "navigate", "webidentity", "*/*", Window),
        sent("Chrome, an iframe", "navigate", "iframe", CHROME, Frame),
        sent("Firefox, a frame of a frame set", "navigate", "frame", HTML, Frame),
        sent("Chrome, a fenced frame", "navigate", "fencedframe", CHROME, Frame),
        sent("Chrome, an object element", "navigate", "object", CHROME, Frame),
        sent("Chrome, an embed element", "navigate", "embed", CHROME, Frame),
        sent("fetch()", "cors", "empty", "*/*", Program),
        sent(
            "fetch() of a page, as Turbo does",
            "cors",
            "empty",
            "text/html, application/xhtml+xml",
            Program,
        ),
        sent("fetch() with mode same-origin", "same-origin", "empty", HTML, Program),
        sent("an image", "no-cors", "image", "image/avif,image/webp,*/*;q=0.8", Program),
        sent("a script", "no-cors", "script", "*/*", Program),
        sent("an EventSource", "cors", "empty", "text/event-stream", Program),
        sent("a link with rel=prefetch", "no-cors", "empty", CHROME, Program),
        sent("a header that no browser sends", "\u{ff}", "document", HTML, Program),
        sent("iPadOS 15, a link", "", "", HTML, Window),
        sent("Internet Explorer 11, a link", "", "", "text/html, application/xhtml+xml, */*", Window),
        sent("iPadOS 15, fetch()", "", "", "*/*", Program),
        sent("iPadOS 15, axios", "", "", "application/json, text/plain, */*", Program),
        sent("iPadOS 15, an image", "", "", "image/webp,image/png,image/svg+xml,image/*;q=0.8", Program),
        sent("curl", "", "", "*/*", Program),
        sent("a program without Accept", "", "", "", Program),
        sent("a program that refuses HTML", "", "", "application/json, text/html;q=0", Program),
        Sent {
            requested_with: "XMLHttpRequest",
            ..sent(
                "iPadOS 15, jQuery that loads a piece of a page",
                "",
                "",
                "text/html, */*; q=0.01",
                Program,
            )
        },
        Sent {
            requested_with: "com.example.app",
            ..sent("an old Android app that shows a page", "", "", HTML, Window)
        },
        Sent { websocket: true, ..sent("Chrome, a WebSocket", "websocket", "websocket", "", Program) },
        Sent { websocket: true, ..sent("iPadOS 15, a WebSocket", "", "", HTML, Program) },
    ];

    #[test]
    fn the_audience_of_what_real_clients_send_is_known() {
        let given = |text: &'static str| (!text.is_empty()).then_some(text.as_bytes());
        for case in TABLE {
            let signs = Signs {
                mode: given(case.mode),
                dest: given(case.dest),
                accepts_html: accepts_html(case.accept.as_bytes()),
                requested_with: given(case.requested_with),
                websocket: case.websocket,
            };
            assert_eq!(audience(&signs), case.expected, "{}", case.who);
        }
    }

    #[test]
    fn html_is_accepted_by_name_and_weight() {
        let table = [
            ("text/html", true),
            ("TEXT/HTML", true),
            (" text/html ; charset=utf-8", true),
            ("*/*, application/xhtml+xml;q=0.1", true),
            ("text/html;q=0.0", false),
            ("text/html; q=0", false),
            ("text/htmlx", false),
            ("application/json", false),
            ("*/*", false),
            ("", false),
        ];
        for (accept, expected) in table {
            assert_eq!(accepts_html(accept.as_bytes()), expected, "{accept}");
        }
    }
}
