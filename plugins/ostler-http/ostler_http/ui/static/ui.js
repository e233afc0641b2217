// Makes pages live. Everything can be read and done without it; it loads nothing from elsewhere.
"use strict";
(() => {
  const base = document.body.dataset.base || "";
  const connection = document.getElementById("connection");
  const live = document.querySelector("[data-live]");
  const feed = document.querySelector("[data-feed]");
  const MAX_ROWS = 1000;
  // The clock of the browser may be wrong; ages are by that of the host.
  const now = Number(document.documentElement.dataset.now) * 1000;
  const skew = now ? Date.now() - now : 0;

  function say(text) {
    if (connection && connection.textContent !== text) connection.textContent = text;
  }

  // ---- times: "1min 5s ago" instead of a date, in the notation of `format_duration`; the date is in the tooltip.
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  function duration(seconds) {
    let rest = Math.round(Math.abs(seconds));
    const parts = [];
    for (const [size, name] of UNITS) {
      const count = Math.floor(rest / size);
      if (count || parts.length) parts.push(count ? `${count}${name}` : "");
      rest %= size;
    }
    return parts.slice(0, 2).filter(Boolean).join(" ") || "0s";
  }
  function textOf(time) {
    const seconds = (Date.now() - skew - Date.parse(time.dateTime)) / 1000;
    if (time.classList.contains("span")) return `for ${duration(Math.max(seconds, 0))}`;
    if (Math.round(seconds) === 0) return "now";
    return seconds < 0 ? `in ${duration(seconds)}` : `${duration(seconds)} ago`;
  }
  function showAges(root) {
    for (const each of root.querySelectorAll("time:not(.exact)")) {
      const text = textOf(each);
      if (each.textContent !== text) each.textContent = text;
    }
  }

  // ---- changes a tree into another one and keeps what is the same: focus, selection, scroll, open details.
  function key(node) {
    return node.nodeType === 1 ? node.getAttribute("data-key") || node.id || "" : "";
  }
  function fits(one, other) {
    return one.nodeType === other.nodeType && one.nodeName === other.nodeName && key(one) === key(other);
  }
  function morphAttributes(from, to) {
    for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && !(name === "open" && from.nodeName === "DETAILS")) from.removeAttribute(name);
    }
  }
  function morphNode(from, to) {
    if (from.nodeType !== 1) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    if (from.isEqualNode(to)) return;
    morphAttributes(from, to);
    if (from === document.activeElement && /^(INPUT|SELECT|TEXTAREA)$/.test(from.nodeName)) return;
    morphChildren(from, to);
  }
  function morphChildren(from, to) {
    let place = from.firstChild;
    for (const wanted of [...to.childNodes]) {
      let found = place;
      if (!found || !fits(found, wanted)) {
        found = key(wanted) ? [...from.children].find((each) => fits(each, wanted)) : null;
      }
      if (!found) {
        from.insertBefore(wanted, place);
        continue;
      }
      if (found !== place) from.insertBefore(found, place);
      morphNode(found, wanted);
      place = found.nextSibling;
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }
  function morph(element, html) {
    const wanted = document.createElement("template");
    wanted.innerHTML = html;
    showAges(wanted.content);
    const focused = document.activeElement;
    morphChildren(element, wanted.content);
    // An element that was moved has lost the focus.
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  }

  // ---- one stream for each page, only while somebody can see it.
  function follow(url, handlers) {
    let source = null, reason = "";
    function open() {
      if (source || document.hidden) return;
      source = new EventSource(url);
      source.onopen = () => { reason = ""; say(""); };
      source.onerror = () => {
        say(`Not up to date: ${reason || "no connection. Trying again."}`);
        if (source && source.readyState === EventSource.CLOSED) {
          close();
          setTimeout(open, 10000);
        }
      };
      source.addEventListener("end", () => { close(); location.reload(); });
      source.addEventListener("problem", (event) => {
        reason = JSON.parse(event.data).text;
        say(`Not up to date: ${reason}`);
      });
      for (const [name, handle] of Object.entries(handlers)) {
        source.addEventListener(name, (event) => {
          reason = "";
          handle(JSON.parse(event.data));
          say("");
        });
      }
    }
    function close() {
      if (source) source.close();
      source = null;
    }
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    addEventListener("pagehide", close);
    addEventListener("pageshow", open);
    open();
    return { open, close };
  }

  if (live) {
    follow(location.pathname + location.search, {
      live(data) {
        morph(live, data.live);
        morph(document.getElementById("health"), data.health);
        document.title = new DOMParser().parseFromString(data.title, "text/html").documentElement.textContent;
        document.documentElement.dataset.updates = Number(document.documentElement.dataset.updates || 0) + 1;
      },
    });
  }

  // ---- lines that are added at the top; who has scrolled down stays where they read.
  if (feed) {
    const state = document.querySelector("[data-feed-state]");
    const button = document.querySelector("[data-pause]");
    let waiting = [], isPaused = false;
    function add(rows) {
      const before = feed.scrollHeight, isAtTop = feed.scrollTop < 4;
      feed.prepend(...rows);
      while (feed.children.length > MAX_ROWS) feed.lastElementChild.remove();
      if (!isAtTop) feed.scrollTop += feed.scrollHeight - before;
    }
    function show() {
      const text = feed.dataset.begun ? "Live" : "Connecting";
      state.textContent = isPaused ? `Paused, ${waiting.length} lines waiting` : text;
      button.textContent = isPaused ? "Continue" : "Pause";
    }
    follow(feed.dataset.feed, {
      begun() {
        if (feed.dataset.begun) {
          const note = document.createElement("li");
          note.className = "warn-text";
          note.textContent = "Not connected until here: lines may be missing below.";
          add([note]);
        }
        feed.dataset.begun = "yes";
        show();
      },
      rows(data) {
        const made = document.createElement("template");
        made.innerHTML = data.rows;
        const rows = [...made.content.children].reverse();
        if (isPaused) waiting = [...rows, ...waiting].slice(0, MAX_ROWS);
        else add(rows);
        if (isPaused) show();
      },
    });
    button.hidden = false;
    button.addEventListener("click", () => {
      isPaused = !isPaused;
      if (!isPaused) { add(waiting); waiting = []; }
      show();
    });
    show();
  }

  // ---- a login link has its code in the fragment, which is not sent to the server with the page.
  const login = document.getElementById("login");
  const code = new URLSearchParams(location.hash.slice(1)).get("once");
  if (login && code) {
    history.replaceState(null, "", location.pathname + location.search);
    login.elements.secret.value = code;
    login.requestSubmit();
  }

  // ---- a button that was pressed is not pressed twice.
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
    setTimeout(() => delete event.target.dataset.sent, 5000);
  });

  showAges(document);
  setInterval(() => showAges(document), 1000);
})();
