"use strict";
// The page requests one frame at a time, and the next one when it has arrived, so that no queue forms.
const about = JSON.parse(document.getElementById("about").textContent);
const [height, width] = about.size;
const dance = about.kind === "dance";
const $ = (id) => document.getElementById(id);
const state = {
  row: 0, sequence: 0, joints: [], lengths: [], chosen: 4, byHand: false, running: false, busy: false, gone: false,
  seed: 1, moved: 0, touched: 0, recorded: about.recorded, unsaved: about.unsaved, keys: new Set(), pad: [0, 0], grabbed: -1,
};
const made = [], lags = []; // arrival times of the last frames, and delays from a move to its frame, in milliseconds
const PERIOD = 1000 / (dance ? 30 : about.fps), REST = 60000;

// --- requests ---------------------------------------------------------------------------------------

async function ask(kind, body, apart = false) {
  while (state.busy && !apart) await new Promise((done) => setTimeout(done, 5));
  state.busy ||= !apart;
  try {
    if (body.size > about.most_picture) { // the server would break off the transfer
      const [size, most] = [body.size, about.most_picture].map((bytes) => bytes.toLocaleString("en"));
      state.refused = kind;
      say(`${body.name} has ${size} bytes; a picture may have at most ${most}.`);
      return null;
    }
    const answer = await fetch(kind, { method: "POST", body: body instanceof Blob ? body : JSON.stringify(body) });
    if (!answer.ok) {
      state.refused = kind;
      say((await answer.json()).error);
      return null;
    }
    const bytes = await answer.arrayBuffer();
    const size = new DataView(bytes).getUint32(0, true);
    if (kind !== "frame" || state.refused !== "save") say(""); // the frames go on while a recording is saved
    return { ...JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, size))), bytes: new Uint8Array(bytes, 4 + size) };
  } catch {
    leave();
    return null;
  } finally {
    if (!apart) state.busy = false;
  }
}
function say(text) {
  if (state.gone) return;
  $("alert").textContent = text;
  $("alert").hidden = !text;
}
function leave() {
  say("vidcvae play has ended or does not answer. Start it again, and this page will continue.");
  state.gone = true;
  document.body.classList.add("gone");
  stop();
}
async function look() {
  try {
    const answer = await fetch("status");
    if (!answer.ok) throw new Error(answer.statusText);
    const status = await answer.json();
    if (status.server !== about.server) location.reload();
    $("step").textContent = `step ${status.step}`;
    if (!$("record").disabled) {
      state.unsaved = status.unsaved;
      tellRecording(state.recorded);
    }
    if (state.gone) {
      state.gone = false;
      document.body.classList.remove("gone");
      say("");
    }
  } catch {
    if (!state.gone) leave();
  }
  setTimeout(look, state.gone ? 700 : 2000);
}

// --- frames -----------------------------------------------------------------------------------------

function wish() {
  const settings = {
    latent: document.querySelector("[name='latent']:checked").value, scale: Number($("scale").value), seed: state.seed,
    beside: $("show-zero").checked, truth: $("show-truth").checked, nearest: $("show-nearest").checked,
  };
  if (!state.byHand) return { ...settings, play: state.row };
  if (dance) return { ...settings, pose: state.joints.map((p) => p && [round(p[0]), round(p[1])]) };
  return { ...settings, action: action() };
}
const round = (x) => Math.round(Math.max(-4000, Math.min(4000, x)) * 100) / 100;

async function frame() {
  if (state.byHand && dance) walk();
  const movedAt = state.moved;
  state.moved = 0;
  const answer = await ask("frame", wish());
  if (!answer) return false;
  show(answer);
  made.push(performance.now());
  if (made.length > 61) made.shift();
  requestAnimationFrame(() => {
    if (movedAt) lags.push(performance.now() - movedAt);
    if (lags.length > 300) lags.shift();
    tellSpeed();
  });
  return true;
}
function stop() {
  state.loop = (state.loop ?? 0) + 1; // a loop that is still running sees that it has been replaced
  state.running = false;
  $("play").textContent = "Play";
}
async function run() {
  if (state.running) return;
  stop();
  const mine = state.loop;
  state.running = true;
  made.length = 0;
  let due = performance.now();
  while (state.loop === mine) {
    $("play").textContent = state.byHand ? "Play" : "Pause";
    if (!state.byHand) {
      if (state.row + 1 >= about.sequences[state.sequence].length) break;
      state.row += 1;
    }
    if (!(await frame())) break;
    due = Math.max(due + (state.byHand ? PERIOD : 1000 / Math.min(60, about.fps)), performance.now());
    if (state.byHand && !busyHands() && performance.now() - state.touched > (dance ? REST : 0)) break;
    await new Promise((done) => setTimeout(done, due - performance.now()));
  }
  if (state.loop === mine) stop();
}
async function begin(sequence, row) {
  stop();
  const answer = await ask("start", { sequence, frame: row });
  if (answer) arrive(answer);
  else $("sequence").value = state.sequence;
}
function arrive(answer) {
  state.byHand = false;
  if (answer.row !== null) state.row = answer.row;
  state.sequence = answer.sequence;
  $("sequence").value = answer.sequence;
  $("scrub").max = about.sequences[state.sequence].length - 1;
  for (const other of document.querySelectorAll("#beside figure")) other.hidden = true;
  show(answer);
}
function show(answer) {
  const size = width * height * 3;
  const sent = new Set(answer.pictures);
  answer.pictures.forEach((name, i) => {
    const figure = document.querySelector(`[data-name='${name}']`);
    if (figure) figure.hidden = name === "pose" && !$("show-pose")?.checked;
    paint(figure ? figure.querySelector("canvas") : $(name), answer.bytes.subarray(i * size, (i + 1) * size));
  });
  for (const figure of document.querySelectorAll("#beside figure")) if (!sent.has(figure.dataset.name)) figure.hidden = true;
  const tell = (name, text) => { document.querySelector(`[data-name='${name}'] output`).textContent = text; };
  tell("truth", answer.psnr === undefined ? "" : `${answer.psnr.toFixed(2)} dB from the model's`);
  tell("nearest", answer.nearest ? `frame ${answer.nearest}, ${answer.nearest_psnr.toFixed(2)} dB from the model's` : "");
  if (dance && !state.byHand && answer.joints?.length) {
    state.joints = answer.joints;
    measure();
  }
  drawFigure();
  $("scrub").value = state.row;
  $("row").textContent = `${state.row} of ${about.sequences[state.sequence].length - 1}`;
  $("step").textContent = `step ${answer.step}`;
  tellRecording(answer.recorded);
  const psnr = answer.psnr === undefined ? "" : `, PSNR ${answer.psnr.toFixed(2)} dB`;
  $("model").setAttribute("aria-label", `The model's frame ${answer.frame} of this run${psnr}`);
  $("model").dataset.frame = answer.frame;
  state.told = `frame ${answer.frame} of this run${psnr}`;
  if (state.grabbed < 0 || !state.byHand) $("told").textContent = state.told;
}
function tellRecording(recorded) {
  // recorded: the number of frames, or null if no recording is running
  state.recorded = recorded;
  const button = $("record"), running = recorded !== null;
  button.setAttribute("aria-pressed", running);
  button.textContent = button.disabled ? "Saving" : running ? `Stop (${recorded})` : state.unsaved ? "Save again" : "Record";
  $("full").hidden = !(recorded >= about.most_recorded);
}
function paint(canvas, rgb) {
  const pixels = new ImageData(width, height);
  for (let i = 0, j = 0; i < rgb.length; i += 3, j += 4) {
    pixels.data[j] = rgb[i];
    pixels.data[j + 1] = rgb[i + 1];
    pixels.data[j + 2] = rgb[i + 2];
    pixels.data[j + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
function share(values, part) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
}
function tellSpeed() {
  const speed = $("speed");
  if (made.length > 2) speed.dataset.fps = ((made.length - 1) * 1000 / (made[made.length - 1] - made[0])).toFixed(1);
  if (lags.length) Object.assign(speed.dataset, { lag: share(lags, 0.5).toFixed(0), p95: share(lags, 0.95).toFixed(0), lags: lags.length });
  const lag = lags.length ? `, ${speed.dataset.lag} ms from hand to picture (95%: ${speed.dataset.p95})` : "";
  speed.textContent = speed.dataset.fps ? `${speed.dataset.fps} frames a second${lag}` : "";
}

// --- the figure: a tree of limbs from the hip ---------------------------------------------------------

const HIP = 8, NECK = 1, ARMS = [4, 7], LEGS = [11, 14];
const parents = about.joints.map(() => -1);
for (const [a, b] of about.limbs) parents[b] = a;
parents[HIP] = -1;
parents[NECK] = HIP;
const below = (joint) => {
  const found = [joint];
  for (const one of found) parents.forEach((parent, child) => { if (parent === one) found.push(child); });
  return found;
};
const away = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
function measure() {
  state.lengths = state.joints.map((p, j) => (p && state.joints[parents[j]] ? away(p, state.joints[parents[j]]) : 0));
  for (const foot of feet) Object.assign(foot, { phase: 1, trend: 0, way: 0 });
}
function shift(joints, dx, dy) {
  for (const j of joints) if (state.joints[j]) state.joints[j] = [state.joints[j][0] + dx, state.joints[j][1] + dy];
}
function turn(joint, x, y) {
  const [px, py] = state.joints[parents[joint]], [jx, jy] = state.joints[joint];
  const angle = Math.atan2(y - py, x - px) - Math.atan2(jy - py, jx - px);
  const c = Math.cos(angle), s = Math.sin(angle);
  for (const j of below(joint)) {
    const p = state.joints[j];
    if (p) state.joints[j] = [px + c * (p[0] - px) - s * (p[1] - py), py + s * (p[0] - px) + c * (p[1] - py)];
  }
}
const bends = {};
function reach(end, x, y, bend) {
  // Bend two bones of fixed lengths so that they end at a point, or as near as they reach; the bend keeps its side
  const middle = parents[end], root = parents[middle], [rx, ry] = state.joints[root], [mx, my] = state.joints[middle];
  const a = state.lengths[middle], b = state.lengths[end], [ex, ey] = state.joints[end];
  const cross = (ex - rx) * (my - ry) - (ey - ry) * (mx - rx);
  if (bend) bends[end] = bend;
  else if (Math.abs(cross) > 0.05 * a * b) bends[end] = Math.sign(cross);
  const far = away([x, y], [rx, ry]), d = Math.max(Math.abs(a - b) + 1e-3, Math.min(a + b - 1e-3, far));
  const angle = Math.atan2(y - ry, x - rx);
  const inner = Math.acos(Math.max(-1, Math.min(1, (a * a + d * d - b * b) / (2 * a * d || 1)))) * (bends[end] || 1);
  state.joints[middle] = [rx + a * Math.cos(angle + inner), ry + a * Math.sin(angle + inner)];
  const [nx, ny] = [rx + d * Math.cos(angle), ry + d * Math.sin(angle)];
  shift(below(end), nx - ex, ny - ey);
}
const feet = LEGS.map((ankle) => ({ ankle, phase: 1, from: [0, 0], trend: 0, way: 0 }));
function carry(dx, dy) {
  // Move the hip; the feet stay in place while the legs can reach them
  const legs = LEGS.flatMap((ankle) => below(parents[ankle]));
  shift(about.joints.map((_, j) => j).filter((j) => !legs.includes(j)), dx, dy);
  for (const foot of feet) {
    const p = state.joints[foot.ankle];
    if (!p || !state.joints[parents[foot.ankle]]) { shift(below(parents[foot.ankle]), dx, dy); continue; }
    shift([parents[foot.ankle]], dx, dy);
    const leg = state.lengths[foot.ankle] + state.lengths[parents[foot.ankle]];
    const root = state.joints[parents[parents[foot.ankle]]];
    if (away(p, root) > 1.02 * leg && Math.abs(p[0] - root[0]) < 0.3 * leg) shift(below(foot.ankle), 0, dy);
    foot.trend = 0.9 * foot.trend + dx;
    if (Math.abs(foot.trend) > 1.5) foot.way = Math.sign(foot.trend); // knees point in the direction of motion
    reach(foot.ankle, ...state.joints[foot.ankle], -foot.way);
  }
}
function walk() {
  // A foot that is too far behind steps ahead of the hip within seven frames, but not while the other foot steps
  for (const [i, foot] of feet.entries()) {
    const p = state.joints[foot.ankle], hip = state.joints[HIP], root = state.joints[parents[parents[foot.ankle]]];
    if (!p || !hip || !root) continue;
    const leg = state.lengths[foot.ankle] + state.lengths[parents[foot.ankle]];
    if (foot.phase >= 1 && feet[1 - i].phase >= 1 && state.grabbed === HIP && Math.abs(p[0] - root[0]) > 0.33 * leg) {
      Object.assign(foot, { phase: 0, from: [...p] });
    }
    if (foot.phase >= 1) continue;
    foot.phase = Math.min(1, foot.phase + 1 / 7);
    const to = root[0] + 0.25 * leg * foot.way * (state.grabbed === HIP);
    reach(foot.ankle, foot.from[0] + (to - foot.from[0]) * foot.phase, foot.from[1] - 0.14 * leg * Math.sin(Math.PI * foot.phase), -foot.way);
  }
}
function drag(joint, x, y, free) {
  const p = state.joints[joint];
  if (!p) return;
  if (free) {
    state.joints[joint] = [x, y];
    measure();
  } else if (joint === HIP || !state.joints[parents[joint]]) carry(x - p[0], y - p[1]);
  else if ((ARMS.includes(joint) || LEGS.includes(joint)) && state.joints[parents[parents[joint]]]) reach(joint, x, y);
  else turn(joint, x, y);
  take();
}
function take() {
  state.byHand = true;
  state.touched = performance.now();
  drawFigure();
  run();
}

const svg = $("figure");
const make = (name, attributes = {}) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  svg.append(element);
  return element;
};
const lines = dance ? about.limbs.map((_, i) => make("line", { stroke: about.colours[i] })) : [];
const knobs = dance ? about.joints.map((_, j) => make("circle", { r: (j > 14 ? 0.007 : 0.013) * height })) : [];
function drawFigure() {
  if (!dance) return;
  $("stage").classList.toggle("bare", !$("skeleton").checked);
  about.limbs.forEach(([a, b], i) => {
    const [p, q] = [state.joints[a], state.joints[b]];
    lines[i].style.display = p && q ? "" : "none";
    if (p && q) Object.entries({ x1: p[0], y1: p[1], x2: q[0], y2: q[1] }).forEach(([k, v]) => lines[i].setAttribute(k, v));
  });
  knobs.forEach((knob, j) => {
    const p = state.joints[j];
    knob.style.display = p ? "" : "none";
    knob.classList.toggle("chosen", j === state.chosen);
    if (p) { knob.setAttribute("cx", p[0]); knob.setAttribute("cy", p[1]); }
  });
}
function place(event) {
  const box = svg.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height, width / box.width];
}
function tellJoint() {
  const p = state.joints[state.chosen];
  $("told").textContent = `${about.joints[state.chosen]}${p ? `, x ${p[0].toFixed(1)}, y ${p[1].toFixed(1)}` : ": not in this pose"}`;
}
if (dance) {
  svg.addEventListener("pointerdown", (event) => {
    const [x, y, pixel] = place(event);
    const reachable = state.joints.map((p, j) => (p ? away(p, [x, y]) / pixel + (j > 14 ? 6 : 0) : Infinity));
    const nearest = reachable.indexOf(Math.min(...reachable));
    if (!(reachable[nearest] < 44)) return;
    event.preventDefault();
    $("stage").focus({ preventScroll: true });
    svg.setPointerCapture(event.pointerId);
    svg.classList.add("held");
    if (!state.byHand) measure();
    state.byHand = true;
    Object.assign(state, { grabbed: nearest, chosen: nearest, hold: [state.joints[nearest][0] - x, state.joints[nearest][1] - y] });
    take();
    tellJoint();
  });
  svg.addEventListener("pointermove", (event) => {
    if (state.grabbed < 0) return;
    const [x, y] = place(event);
    state.moved = event.timeStamp;
    drag(state.grabbed, x + state.hold[0], y + state.hold[1], event.shiftKey);
    tellJoint();
  });
  for (const name of ["pointerup", "pointercancel"]) svg.addEventListener(name, () => { state.grabbed = -1; svg.classList.remove("held"); });
  $("stage").addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const p = state.joints[state.chosen];
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "[" || event.key === "]") {
      const step = event.key === "]" ? 1 : state.joints.length - 1;
      for (let k = 0; k < state.joints.length; k++) {
        state.chosen = (state.chosen + step) % state.joints.length;
        if (state.joints[state.chosen]) break;
      }
      drawFigure();
    } else if (event.key in moves && p) {
      if (!state.byHand) measure();
      state.moved = event.timeStamp;
      state.grabbed = state.chosen;
      drag(state.chosen, p[0] + moves[event.key][0], p[1] + moves[event.key][1], event.shiftKey);
      if (state.chosen !== HIP) state.grabbed = -1;
      clearTimeout(state.letGo);
      state.letGo = setTimeout(() => { state.grabbed = -1; }, 400);
    } else return;
    event.preventDefault();
    tellJoint();
  });
}

// --- the robot ----------------------------------------------------------------------------------------

function busyHands() {
  return state.grabbed >= 0 || state.keys.size > 0 || state.pad[0] !== 0 || state.pad[1] !== 0;
}
function action() {
  // The first number points right and the second one down, as for the synthetic arm
  const [x, y] = state.keys.size
    ? [state.keys.has("ArrowRight") - state.keys.has("ArrowLeft"), state.keys.has("ArrowDown") - state.keys.has("ArrowUp")]
    : state.pad;
  const rest = [...document.querySelectorAll(".action")].map((input) => Number(input.value));
  const scaled = [x, y].map((share, i) => share * Math.max(...about.actions[i].map(Math.abs)));
  return [...scaled, ...rest].slice(0, about.actions.length);
}
function steer(event) {
  state.byHand = true;
  state.moved = event.timeStamp;
  state.touched = performance.now();
  run();
}
const pad = $("pad");
if (pad) {
  const aim = (event) => {
    const box = pad.getBoundingClientRect();
    const [x, y] = [(2 * (event.clientX - box.left)) / box.width - 1, (2 * (event.clientY - box.top)) / box.height - 1];
    const far = Math.max(1, Math.hypot(x, y));
    state.pad = [x / far, y / far];
    pad.firstElementChild.style.transform = `translate(${state.pad[0] * 4.5}rem, ${state.pad[1] * 4.5}rem)`;
    steer(event);
  };
  pad.addEventListener("pointerdown", (event) => { pad.setPointerCapture(event.pointerId); aim(event); });
  pad.addEventListener("pointermove", (event) => pad.hasPointerCapture(event.pointerId) && aim(event));
  for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, () => {
    state.pad = [0, 0];
    pad.firstElementChild.style.transform = "";
  });
  document.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow") || event.target.matches("input, select") || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    state.keys.add(event.key);
    steer(event);
  });
  document.addEventListener("keyup", (event) => state.keys.delete(event.key));
  addEventListener("blur", () => state.keys.clear());
}

// --- controls -----------------------------------------------------------------------------------------

async function still(byHand) {
  // Make one frame and stop
  stop();
  state.byHand = byHand;
  await frame();
}
async function scrub() {
  // Show the row of the slider; rows that it passes during a request are skipped
  state.row = Number($("scrub").value);
  if (state.scrubbing === state.loop || (state.running && !state.byHand)) return;
  stop();
  const mine = state.scrubbing = state.loop;
  state.byHand = false;
  for (let shown; state.loop === mine && shown !== state.row;) {
    shown = state.row;
    if (!(await frame())) break;
  }
  if (state.scrubbing === mine) state.scrubbing = null;
}
function play() {
  const playing = state.running && !state.byHand;
  stop();
  state.byHand = false;
  if (!playing) run();
}
const act = {
  play,
  next: () => { if (!state.byHand) state.row = Math.min(state.row + 1, about.sequences[state.sequence].length - 1); still(state.byHand); },
  again: () => begin(state.sequence, 0),
  here: () => begin(state.sequence, Math.max(0, Math.min(state.row, about.sequences[state.sequence].frames - about.past))),
  sample: () => {
    state.seed = Math.floor(Math.random() * 2 ** 31);
    document.querySelector("[name='latent'][value='prior']").checked = true;
    if (!state.running) still(state.byHand);
  },
  record: async () => {
    if ($("record").disabled) return; // the key c while a recording is being saved
    if (state.recorded === null && !state.unsaved) {
      const begun = await ask("record", {});
      if (begun) tellRecording(begun.recorded);
      return;
    }
    const holds = state.unsaved || state.recorded > 0;
    $("record").disabled = true;
    tellRecording(null);
    const kept = await ask("save", { kind: $("kind").value }, true);
    $("record").disabled = false;
    state.unsaved = holds && !kept; // the server keeps it
    tellRecording(null);
    if (kept) keep(kept);
    if (kept && !$("model").dataset.frame) begin(0, 0); // the page was opened during the recording
  },
  still: () => $("model").toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `frame-${$("model").dataset.frame}.png` });
    link.click();
    URL.revokeObjectURL(link.href);
  }),
};
function keep(kept) {
  const entry = document.createElement("li");
  const link = Object.assign(document.createElement("a"), { href: kept.video, download: kept.video, textContent: kept.video });
  const command = Object.assign(document.createElement("pre"), { textContent: kept.command });
  const of = kept.first ? `frames ${kept.first} to ${kept.last} of this run` : "from the start of this run";
  entry.append(link, ` ${kept.frames} frames, ${of}. The recording and its input are in ${kept.folder}. To reproduce it${kept.exact ? "" : " approximately"}:`, command);
  $("kept").prepend(entry);
}
for (const [id, does] of Object.entries(act)) $(id).addEventListener("click", does);
$("sequence").addEventListener("change", () => begin(Number($("sequence").value), 0));
$("scrub").addEventListener("input", scrub);
$("scale").addEventListener("input", () => { $("scaled").textContent = Number($("scale").value).toFixed(1); });
$("skeleton")?.addEventListener("change", drawFigure);
$("show-pose")?.addEventListener("change", () => { document.querySelector("[data-name='pose']").hidden = !$("show-pose").checked; });
async function load(file) {
  if (!file) return;
  stop();
  const answer = await ask("picture", file);
  if (answer) arrive(answer);
}
$("picture").addEventListener("change", (event) => { load(event.target.files[0]); event.target.value = ""; });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { event.preventDefault(); load(event.dataTransfer.files[0]); });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.target.matches("select, [type='text']")) return;
  const keys = { " ": "play", ".": "next", r: "again", n: "sample", c: "record" };
  if (!(event.key in keys) || (event.key === " " && event.target.matches("button, input"))) return;
  event.preventDefault();
  act[keys[event.key]]();
});
document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); });
tellRecording(about.recorded);
begin(0, 0).then(() => { document.body.dataset.ready = ""; });
look();
