"use strict";
// On a narrow page each row of a wide table becomes a block, whose cells are labelled with their columns' headings.
for (const table of document.querySelectorAll(".wide table")) {
  const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  table.setAttribute("role", "table");
  for (const row of table.rows) {
    row.setAttribute("role", "row");
    for (const cell of row.cells) {
      cell.dataset.head = heads[cell.cellIndex];
      cell.setAttribute("role", cell.scope === "row" ? "rowheader" : cell.scope === "col" ? "columnheader" : "cell");
    }
  }
}
// Each player shows one frame of all its videos at a time. One image contains all frames of a video, row by row.
for (const player of document.querySelectorAll(".player")) {
  const plan = JSON.parse(player.querySelector("script[type='application/json']").textContent);
  const [slider, button, speed] = ["input", "button", "select"].map((name) => player.querySelector(name));
  const caption = player.querySelector(".frame");
  const screens = [...player.querySelectorAll(".screen")].map((element, i) => ({
    canvas: element.querySelector("canvas"), sheet: element.querySelector("img"), score: element.querySelector("output"),
    name: plan.videos[i].name, psnr: plan.videos[i].psnr,
  }));
  const cursors = [...document.querySelectorAll("[data-cursor] > svg")].map((svg) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("class", "cursor");
    svg.append(line);
    return { line, at: svg.dataset };
  });
  let shown = 0, timer = 0;

  function show(index) {
    shown = Math.max(0, Math.min(plan.frames.length - 1, index));
    const frame = plan.frames[shown];
    for (const { canvas, sheet, score, name, psnr } of screens) {
      const { width, height } = canvas;
      const x = (shown % plan.columns) * width, y = Math.floor(shown / plan.columns) * height;
      canvas.getContext("2d").drawImage(sheet, x, y, width, height, 0, 0, width, height);
      const value = psnr && psnr[shown] !== null ? `${psnr[shown].toFixed(2)} dB` : psnr ? "given" : "";
      score.textContent = value;
      canvas.setAttribute("aria-label", `${name}, frame ${frame}${value && `, ${value}`}`);
    }
    slider.value = shown;
    const text = `frame ${frame} of ${plan.frames[plan.frames.length - 1]}`;
    slider.setAttribute("aria-valuetext", text);
    caption.textContent = text;
    for (const { line, at } of cursors) {
      const share = (frame - at.low) / (at.high - at.low);
      const x = Number(at.left) + Math.max(0, share) * (at.right - at.left);
      line.setAttribute("d", `M${x.toFixed(1)} 26V${at.bottom}`);
    }
  }
  function play(start) {
    clearInterval(timer);
    timer = start ? setInterval(() => show((shown + 1) % plan.frames.length), 1000 / (plan.fps * speed.value)) : 0;
    button.textContent = start ? "Pause" : "Play";
  }
  button.addEventListener("click", () => play(!timer));
  slider.addEventListener("input", () => { play(false); show(Number(slider.value)); });
  speed.addEventListener("change", () => timer && play(true));
  player.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target === speed) return;
    const steps = { ArrowLeft: event.shiftKey ? -25 : -1, ArrowRight: event.shiftKey ? 25 : 1, Home: -Infinity, End: Infinity };
    if (event.key === "k" || (event.key === " " && event.target !== button)) play(!timer);
    else if (event.key in steps) { play(false); show(shown + steps[event.key]); }
    else return;
    event.preventDefault();
  });
  Promise.all(screens.map(({ sheet }) => sheet.decode())).then(() => {
    for (const control of [slider, button, speed]) control.disabled = false;
    show(plan.start);
    player.dataset.ready = "";
  });
}
