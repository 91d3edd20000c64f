// The labelling app's own module: panic key, holding a picture open, and the label page that answers at once and saves behind.
// Every page works without it by plain links and forms.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const body = document.body;
const person = JSON.parse(body.dataset.person || "{}"); // {who, study, csrf, keys, toggle}
const keys = person.keys || {};
const actions = Object.fromEntries(Object.entries(keys).map(([action, key]) => [key, action]));
const handlers = {}; // action -> function; filled below by whatever page this is
document.documentElement.classList.add("js");
const tab = $(".bar nav [aria-current]"); // on a phone the row of pages is wider than the screen
if (tab) tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.offsetLeft - 40;

// --- keys --------------------------------------------------------------------------------------------------------------------

function keyName(event) {
  if (event.key.length !== 1) return event.key;
  const physical = /^Key([A-Z])$/.exec(event.code); // a Greek or Cyrillic layout still has its F where F is
  return event.key.charCodeAt(0) > 127 && physical ? physical[1].toLowerCase() : event.key.toLowerCase();
}

function onKey(event) {
  if (event.key === "Escape") {
    event.preventDefault();
    return blank();
  }
  if ($(".blank") || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const name = keyName(event);
  const action = name === "?" ? "help" : actions[name];
  const native = (name === " " || name === "Enter") && event.target.closest("button, a, summary"); // these press what has the focus
  if (native || (body.querySelector("dialog[open]") && action !== "help")) return;
  if (action === "look" && body.classList.contains("guarded")) {
    event.preventDefault();
    if (!event.repeat) look(person.toggle ? !body.classList.contains("looking") : true);
    return;
  }
  const handler = handlers[action] || (/^[1-9]$/.test(name) && handlers.digit) || pressed(action);
  if (!handler) return;
  event.preventDefault();
  if (!event.repeat) handler(name);
}

function pressed(action) { // a page without a handler of its own: the key presses the button that names it
  const button = action && $(`[data-action="${action}"]`);
  return button && (() => button.click());
}

addEventListener("keydown", onKey, true);
addEventListener("keyup", (event) => { if (actions[keyName(event)] === "look" && !person.toggle) look(false); });
addEventListener("blur", () => look(false));
handlers.help = () => { const box = $("#help"); if (box) box.open ? box.close() : box.showModal(); };
$$("[data-help]").forEach((button) => button.addEventListener("click", handlers.help));

// --- care: the panic key, and pictures that open only while they are held ----------------------------------------------------

function blank() {
  if ($(".blank")) return;
  look(false);
  $$("dialog[open]").forEach((box) => box.close());
  const cover = document.createElement("div");
  cover.className = "blank";
  const back = document.createElement("button");
  back.textContent = "Show the page again";
  cover.append(back);
  const rest = [...body.children];
  const title = document.title;
  rest.forEach((node) => { node.inert = true; node.style.visibility = "hidden"; });
  document.title = " ";
  body.append(cover);
  back.focus();
  clock.stop();
  back.addEventListener("click", () => {
    cover.remove();
    rest.forEach((node) => { node.inert = false; node.style.visibility = ""; });
    document.title = title;
    clock.start();
    ($("#work") || $("main"))?.focus();
  });
}

function look(open) {
  body.classList.toggle("looking", open);
}

let pressedAt = 0;
addEventListener("pointerdown", () => { pressedAt = performance.now(); }, true);
$$("[data-hide]").forEach((link) => link.addEventListener("click", (event) => { event.preventDefault(); blank(); }));
addEventListener("contextmenu", (event) => { if (event.target.closest(".pic")) event.preventDefault(); });
addEventListener("dragstart", (event) => { if (event.target.closest(".pic, .slot")) event.preventDefault(); });
addEventListener("click", (event) => {
  const picture = event.target.closest(".guarded.toggle .pic");
  if (picture) picture.classList.toggle("open");
});

const clock = { // seconds that a picture has been looked at: hidden tabs and the blank page do not count
  spent: 0, since: null,
  reset() { this.spent = 0; this.since = performance.now(); },
  stop() { if (this.since !== null) this.spent += performance.now() - this.since; this.since = null; },
  start() { if (this.since === null) this.since = performance.now(); },
  seconds() { return Math.min(86400, Math.round(this.spent + (this.since === null ? 0 : performance.now() - this.since)) / 1000); },
};
document.addEventListener("visibilitychange", () => (document.hidden ? clock.stop() : $(".blank") || clock.start()));

// --- key fields of the settings page -----------------------------------------------------------------------------------------

$$("input[data-key]").forEach((field) => field.addEventListener("keydown", (event) => {
  if (["Tab", "Escape", "Shift"].includes(event.key)) return;
  event.preventDefault();
  field.value = keyName(event) === " " ? "Space" : keyName(event);
}));

// --- the outbox: an answer stays in the browser until the server has it ------------------------------------------------------

function uuid() { // randomUUID is for secure origins only, and a laboratory's own network may have plain http
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

const outbox = {
  prefix: `hfi:${person.study}:${person.who}:`,
  memory: new Map(), // where the browser has no storage for us
  count: 0,
  put(path, data) {
    const entry = { id: uuid(), order: Date.now() * 1000 + (this.count++ % 1000), path, data };
    try { localStorage.setItem(this.prefix + entry.id, JSON.stringify(entry)); } catch { this.memory.set(entry.id, entry); }
    saved();
  },
  all() {
    const found = [...this.memory.values()];
    try {
      for (const name of Object.keys(localStorage)) if (name.startsWith(this.prefix)) found.push(JSON.parse(localStorage.getItem(name)));
    } catch { /* no storage */ }
    return found.filter((entry) => entry && entry.data).sort((a, b) => a.order - b.order);
  },
  drop(entry) {
    this.memory.delete(entry.id);
    try { localStorage.removeItem(this.prefix + entry.id); } catch { /* no storage */ }
  },
};
addEventListener("beforeunload", (event) => { if (outbox.memory.size) event.preventDefault(); });

async function call(path, data) {
  const settings = { headers: { accept: "application/json" }, signal: AbortSignal.timeout(20000), credentials: "same-origin" };
  if (data) {
    const text = JSON.stringify(data);
    Object.assign(settings, { method: "POST", body: text, keepalive: true });
    Object.assign(settings.headers, { "content-type": "application/json", "x-csrf-token": person.csrf });
  }
  const response = await fetch(path, settings);
  let found = null;
  try { found = await response.json(); } catch { /* a proxy's page */ }
  return { status: response.status, found };
}

function ended() {
  message("Your session has ended. Your answers are kept in this browser until you log in.", { href: "/login", text: "Log in again" });
}

let sending = false, pause = 0, timer = null;

async function flush() {
  clearTimeout(timer);
  if (sending) return;
  sending = true;
  try {
    for (let entry; (entry = outbox.all()[0]); ) {
      const { status, found } = await call(entry.path, entry.data);
      if (status === 403 && found?.kind === "csrf") {
        const session = await call("/api/session");
        if (session.status === 401) ended();
        if (session.status !== 200 || session.found.csrf === person.csrf) throw new Error("no session");
        person.csrf = session.found.csrf;
        continue;
      }
      if (status === 401) {
        ended();
        throw new Error("no session");
      }
      if (status >= 500 || status === 429 || status === 408 || !found) throw new Error(`status ${status}`);
      outbox.drop(entry);
      pause = 0;
      if (status >= 400) refused(entry, found);
      saved();
      if (stage && at >= items.length) fill();
    }
  } catch {
    pause = Math.min(pause ? pause * 2 : 500, 15000);
    timer = setTimeout(flush, pause * (0.75 + Math.random() / 2));
  } finally {
    sending = false;
    saved();
  }
}
addEventListener("online", () => { pause = 0; flush(); });

// --- the label page ----------------------------------------------------------------------------------------------------------

const stage = $("#stage[data-state]");
const state = stage ? JSON.parse(stage.dataset.state) : null; // {items, past, progress, guideline, break_every}
const items = []; // {id, task, images, given: [{submission, answer, order}], node}
let at = 0, order = 0, filling = false, drained = false, refill = null;
let rested = state?.break_every ? Math.floor(state.progress.today / state.break_every) : 0; // reminders given today
const AHEAD = 8; // items whose pictures are loaded before they are needed

const current = (item) => item.given[item.given.length - 1];
const frontier = () => { const found = items.findIndex((item) => !item.given.length); return found < 0 ? items.length : found; };
const asItem = (data) => ({ id: data.id, task: data.task, images: data.images, given: [], draft: { places: {}, excluded: [] } });

function message(text, link) {
  const box = $("#message");
  if (!box) return;
  box.textContent = text;
  if (link) { const a = document.createElement("a"); a.href = link.href; a.textContent = link.text; box.append(" ", a); }
}

function saved() {
  const box = $("#saved");
  if (!box) return;
  const waiting = outbox.all().length;
  box.className = `saved ${waiting && pause ? "away" : waiting ? "waiting" : ""}`;
  box.textContent = !waiting ? "All saved" : pause ? `${waiting} kept in this browser; trying again` : `Saving ${waiting}`;
}

function refused(entry, found) {
  const item = items.find((one) => one.id === entry.data.item || one.given.some((each) => each.submission === entry.data.submission));
  message(`Not taken: ${found.error || "the server refused it"}`);
  if (!item || entry.path !== "/api/answers") return;
  item.given = item.given.filter((each) => each.submission !== entry.data.submission);
  if (!item.given.length && items[at] !== item) items.splice(items.indexOf(item), 1), at = Math.min(at, items.length), show(frontier());
}

function begin() {
  for (const old of state.past) {
    const item = items.find((one) => one.id === old.id) || asItem(old);
    if (!items.includes(item)) items.push(item);
    item.given.push({ submission: old.submission, answer: old.answer, order: ++order });
  }
  items.push(...state.items.filter((one) => !items.some((known) => known.id === one.id && known.given.length)).map(asItem));
  for (const entry of outbox.all()) { // answers of an earlier page that the server has not had yet
    if (entry.path === "/api/undo") {
      items.forEach((item) => { item.given = item.given.filter((each) => each.submission !== entry.data.submission); });
      continue;
    }
    const item = items.find((one) => one.id === entry.data.item);
    if (item && !item.given.some((each) => each.submission === entry.data.submission)) {
      item.given.push({ submission: entry.data.submission, answer: entry.data, order: ++order });
    }
  }
  const asked = new URLSearchParams(location.search).get("item");
  const index = items.findIndex((item) => item.id === asked);
  show(index < 0 ? frontier() : index);
  meter();
  flush();
}

function build(item) {
  const node = document.importNode($(`#template-${item.task}`).content.firstElementChild, true); // a mere clone would load no pictures
  const spots = $$("img[data-picture]", node);
  $$(".slot, option", node).forEach((place) => {
    if (Number(place.dataset.place || place.value) > item.images.length) (place.closest("li.rank") ? place : place.parentElement).remove();
  });
  spots.forEach((image, index) => {
    if (index >= item.images.length) return image.closest("li").remove();
    image.src = `/image/${item.images[index]}`;
    image.addEventListener("error", () => setTimeout(() => { image.src = `/image/${item.images[index]}?again=${Date.now()}`; }, 2000));
    image.decode().catch(() => {});
  });
  if (item.task === "ranking") ranking(item, node);
  wire(node);
  return node;
}

function wire(node) {
  $$("button[data-action]", node).forEach((button) => button.addEventListener("click", (event) => {
    event.preventDefault();
    handlers[button.dataset.action]?.();
  }));
  node.addEventListener("click", (event) => { if (event.detail && event.target.closest("button")) release(); });
}

function release() { // after a click or a drag, Space and Enter shall look and save, not press what was clicked again
  $("#work").focus({ preventScroll: true });
}

function show(index) {
  const item = items[(at = Math.max(0, Math.min(index, items.length)))];
  look(false);
  $$(".pic.open").forEach((picture) => picture.classList.remove("open"));
  const focused = document.activeElement?.closest("#item [data-action]")?.dataset.action;
  if (item) {
    item.node ??= build(item);
    $("#item").replaceChildren(item.node);
    if (focused) $(`[data-action="${focused}"]`, item.node)?.focus({ preventScroll: true }); // who answers by Tab and Enter stays there
    const title = $("#question");
    title.textContent = title.dataset[item.task];
    const given = current(item)?.answer;
    $$(".answers button", item.node).forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.action === given?.value)));
    if (item.task === "ranking") item.redraw();
  } else if (drained) {
    const { progress } = state;
    const why = progress.opted_out ? "opted" : progress.capped ? "capped" : progress.left ? "waiting" : "done";
    $("#item").replaceChildren($(`#template-${why}`).content.cloneNode(true));
  } else {
    const note = document.createElement("p");
    note.className = "soft";
    note.textContent = "Fetching pictures …";
    $("#item").replaceChildren(note);
  }
  clock.reset();
  $("#back").disabled = at === 0;
  $("#forward").disabled = at >= frontier();
  $("#undo").disabled = !items.some((one) => one.given.length);
  for (const next of items.slice(at + 1, at + 1 + AHEAD)) next.node ??= build(next);
  fill();
}

async function fill() {
  if (filling || items.length - frontier() > AHEAD || drained) return;
  clearTimeout(refill);
  filling = true;
  const quiet = !outbox.all().length;
  let more = true;
  try {
    const { status, found } = await call(`/api/next?count=${AHEAD + 4}&round=${state.round}`);
    if (status === 200) {
      const fresh = found.items.filter((one) => !items.some((known) => known.id === one.id));
      items.push(...fresh.map(asItem));
      const { done, today } = state.progress;
      const still = quiet && !outbox.all().length; // else the server may or may not have counted what is under way
      Object.assign(state, { progress: still ? found.progress : { ...found.progress, done, today }, guideline: found.guideline });
      meter();
      drained = !fresh.length && frontier() >= items.length && !outbox.all().length;
      more = fresh.length > 0;
      if (at >= items.length - fresh.length) show(at);
      else for (const next of items.slice(at + 1, at + 1 + AHEAD)) next.node ??= build(next);
    } else if (status === 401) ended();
    else if (status < 500) message(found?.error || "The server gave no more pictures.");
  } catch { /* away: asked again below */ }
  filling = false;
  const { progress } = state;
  if (drained && (!progress.left || progress.capped || progress.opted_out)) return;
  if (items.length - frontier() < AHEAD / 2) refill = setTimeout(() => { drained = false; fill(); }, more ? 2000 : 15000); // lent to others just now
}

function meter() {
  const { progress } = state;
  const { done, left, today } = progress, total = done + left;
  $$("[data-count]").forEach((node) => {
    const values = { done, left, today, pace: progress.pace_per_minute.toFixed(0), flagged: progress.flagged_seen_today };
    node.textContent = Number(values[node.dataset.count]).toLocaleString("en");
  });
  const bar = $("#meter");
  if (bar) { bar.max = total || 1; bar.value = done; }
}

function ready(item) {
  if ($$(".pic img", item.node).every((image) => image.complete && image.naturalWidth)) return true;
  message("The picture is still loading.");
  return false;
}

const WORDS = { present: "Present", absent: "Absent", unsure: "Unsure", skip: "Skipped", ranked: "Order saved" };

function answer(value, extra = {}) {
  const item = items[at];
  if (!item || !ready(item)) return;
  const before = current(item), submission = uuid();
  const data = { submission, item: item.id, value, seconds: clock.seconds(), guideline: state.guideline, revises: before?.submission ?? null, ...extra };
  outbox.put("/api/answers", data);
  item.given.push({ submission, answer: data, order: ++order });
  if (!before) {
    state.progress.done += 1;
    state.progress.today += 1;
    state.progress.left = Math.max(0, state.progress.left - 1);
  }
  message("");
  $("#said").textContent = `${WORDS[value]}${before ? " (changed)" : ""}`;
  show(before ? at + 1 : frontier());
  meter();
  setTimeout(flush); // the next picture is drawn first
  const rests = state.break_every ? Math.floor(state.progress.today / state.break_every) : 0;
  if (!before && rests > rested) { rested = rests; rest(); }
}

function rest() {
  const box = $("#rest");
  $("[data-rest]", box).textContent = state.progress.today;
  clock.stop();
  box.addEventListener("close", () => clock.start(), { once: true });
  box.showModal();
}

function undo() {
  const item = items.filter((one) => one.given.length).sort((a, b) => current(b).order - current(a).order)[0];
  if (!item) return message("There is nothing to undo.");
  const { submission } = item.given.pop();
  outbox.put("/api/undo", { submission });
  if (!item.given.length) { state.progress.done -= 1; state.progress.today -= 1; state.progress.left += 1; }
  drained = false;
  message("");
  $("#said").textContent = "Taken back; judge it again";
  show(items.indexOf(item));
  meter();
  setTimeout(flush);
}

// --- ranking: tap or press the pictures in order, drag them to a place, or choose the place --------------------------------

function ranking(item, node) {
  const cards = $$(".rank", node), slots = $$(".slot", node), { draft } = item;
  const hint = (text) => message(text);
  const used = () => Object.values(draft.places);
  const free = () => { for (let place = 1; ; place++) if (!used().includes(place)) return place; };
  const holder = (place) => item.images.find((name) => draft.places[name] === place);
  let arming = false, last = [];

  item.redraw = () => {
    const given = current(item)?.answer;
    if (given?.value === "ranked" && !Object.keys(draft.places).length && !draft.excluded.length) {
      given.ranking.forEach((name, index) => { draft.places[name] = index + 1; });
      draft.excluded = [...given.excluded];
    }
    cards.forEach((card, index) => {
      const name = item.images[index], place = draft.places[name], out = draft.excluded.includes(name);
      card.classList.toggle("placed", Boolean(place));
      card.classList.toggle("excluded", out);
      $(".place", card).textContent = out ? "X" : place || "";
      $("select", card).value = out ? "x" : place || "";
      $("[data-out]", card).setAttribute("aria-pressed", String(out));
      $(".pic", card).setAttribute("aria-label", `Picture ${index + 1}${out ? ", excluded" : place ? `, place ${place}` : ""}`);
    });
    slots.forEach((slot) => {
      const place = Number(slot.dataset.place), name = holder(place);
      slot.classList.toggle("full", Boolean(name));
      slot.replaceChildren();
      if (name) { const image = new Image(); image.src = `/image/${name}`; image.alt = ""; slot.append(image); }
      const number = document.createElement("span");
      if (name) number.className = "number";
      number.textContent = place;
      slot.append(number);
      slot.setAttribute("aria-label", name ? `Place ${place}: picture ${item.images.indexOf(name) + 1}. Press to take it out` : `Place ${place}: empty`);
    });
    const done = used().length + draft.excluded.length === item.images.length && used().length > 1;
    $("[data-action=save]", node).disabled = !done;
    $("[data-action=exclude]", node)?.setAttribute("aria-pressed", String(arming));
  };
  const clear = (name) => { delete draft.places[name]; draft.excluded = draft.excluded.filter((one) => one !== name); };
  const put = (name, place) => { // onto a taken place: the two change places
    const other = holder(place), mine = draft.places[name];
    clear(name);
    if (other && other !== name) { if (mine) draft.places[other] = mine; else delete draft.places[other]; }
    draft.places[name] = place;
    last.push(name);
  };
  const out = (name) => { const was = draft.excluded.includes(name); clear(name); if (!was) { draft.excluded.push(name); last.push(name); } };
  const pick = (index) => {
    const name = item.images[index];
    if (!name) return;
    message("");
    if (arming) out(name);
    else if (draft.places[name] || draft.excluded.includes(name)) clear(name);
    else put(name, free());
    arming = false;
    item.redraw();
  };
  item.pick = pick;
  item.arm = () => {
    const focused = document.activeElement?.closest(".rank");
    if (focused) { out(item.images[cards.indexOf(focused)]); } else { arming = !arming; hint(arming ? "Exclude which one? Press its number, or tap it." : ""); }
    item.redraw();
  };
  item.takeBack = () => { const name = last.pop(); if (name) clear(name); item.redraw(); };
  item.save = () => {
    const placed = item.images.filter((name) => draft.places[name]).sort((a, b) => draft.places[a] - draft.places[b]);
    if (placed.length + draft.excluded.length < item.images.length) return hint("Give every picture a place, or exclude it with X.");
    if (placed.length < 2) return hint("An order needs two pictures at least. Choose Unsure or Skip instead.");
    answer("ranked", { ranking: placed, excluded: [...draft.excluded] });
  };
  cards.forEach((card, index) => {
    const name = item.images[index];
    const picture = $(".pic", card);
    picture.addEventListener("click", (event) => {
      const held = body.classList.contains("guarded") && event.detail && performance.now() - pressedAt > 350; // looked at, not chosen
      const closed = body.classList.contains("guarded") && person.toggle && !picture.classList.contains("open");
      if (!dragged && !held && !closed) pick(index);
    });
    $("[data-out]", card).addEventListener("click", () => { out(name); item.redraw(); });
    $("select", card).addEventListener("change", (event) => {
      const value = event.target.value, place = Number(value), other = place && holder(place);
      if (other && other !== name) hint(`No ties: picture ${item.images.indexOf(other) + 1} already has place ${place}. Give that one another place first.`);
      else { clear(name); if (value === "x") out(name); else if (place) put(name, place); message(""); }
      item.redraw();
    });
    drag(card, $("img", card), () => name);
  });
  slots.forEach((slot) => {
    const place = Number(slot.dataset.place);
    slot.addEventListener("click", () => { const name = holder(place); if (name && !dragged) { clear(name); item.redraw(); } });
    drag(slot, null, () => holder(place));
  });
  let dragged = false;
  function drag(handle, image, nameOf) {
    handle.addEventListener("pointerdown", (down) => {
      const name = nameOf();
      dragged = false;
      if (!name || down.button || down.target.closest("select, [data-out]")) return;
      let ghost = null, over = null;
      const move = (event) => {
        if (!ghost && Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) < 8) return;
        if (!ghost) {
          dragged = true;
          ghost = document.createElement("div");
          ghost.className = "ghost slot full";
          const copy = new Image();
          copy.src = `/image/${name}`;
          copy.alt = "";
          ghost.append(copy);
          body.append(ghost);
          handle.classList.add("drag");
          window.getSelection()?.removeAllRanges();
        }
        ghost.style.transform = `translate(${event.clientX}px, ${event.clientY}px)`;
        const target = document.elementFromPoint(event.clientX, event.clientY)?.closest(".slot:not(.ghost)");
        if (target !== over) { over?.classList.remove("over"); target?.classList.add("over"); over = target; }
      };
      const end = (event) => {
        removeEventListener("pointermove", move);
        removeEventListener("pointerup", end);
        removeEventListener("pointercancel", end);
        handle.classList.remove("drag");
        over?.classList.remove("over");
        ghost?.remove();
        if (ghost && over && event.type === "pointerup") put(name, Number(over.dataset.place));
        else if (ghost && !image && event.type === "pointerup") clear(name); // dragged out of the row of places
        if (ghost) { item.redraw(); release(); }
        setTimeout(() => { dragged = false; });
      };
      addEventListener("pointermove", move);
      addEventListener("pointerup", end);
      addEventListener("pointercancel", end);
    });
  }
}

if (stage) {
  for (const value of ["present", "absent"]) handlers[value] = () => items[at]?.task === "binary" && answer(value);
  for (const value of ["unsure", "skip"]) handlers[value] = () => answer(value);
  Object.assign(handlers, {
    undo,
    back: () => at > 0 && show(at - 1),
    forward: () => at < frontier() && show(at + 1),
    digit: (name) => items[at]?.pick?.(Number(name) - 1),
    exclude: () => items[at]?.arm?.(),
    save: () => items[at]?.save?.(),
    takeback: () => items[at]?.takeBack?.(),
    guide: () => { const side = $("#side"); side.hidden = !side.hidden; stage.classList.toggle("alone", side.hidden); },
  });
  $$("[data-step]").forEach((button) => button.addEventListener("click", (event) => { event.preventDefault(); handlers[button.dataset.step](); }));
  $("#item").addEventListener("submit", (event) => event.preventDefault());
  begin();
}
