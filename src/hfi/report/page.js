// Filters, the slider and the reveal buttons of the report. Without it the page stands, blurred.
(() => {
  "use strict";
  const all = (selector) => [...document.querySelectorAll(selector)];
  const grid = document.querySelector(".pairs.grid");
  const press = (button, on) => button.setAttribute("aria-pressed", String(on));

  const flagged = all(".flagged");
  const reveal = (button, on) => {
    const picture = button.querySelector("img");
    const words = button.dataset.alt;
    picture.src = on ? picture.dataset.clear : picture.dataset.blurred;
    picture.alt = on ? words : words + ", flagged, blurred";
    press(button, on);
    button.classList.toggle("open", on);
    button.setAttribute("aria-label", on ? "Flagged picture, " + words + ". Shown; press to blur" : "Flagged picture, " + words + ". Blurred; press to show");
  };
  const everything = document.querySelector(".reveal-all");
  const inPairs = flagged.filter((button) => button.closest("#pictures"));
  const sync = () => {
    if (!everything) return;
    const open = inPairs.every((button) => button.classList.contains("open"));
    press(everything, open);
    everything.textContent = open ? everything.dataset.blur : everything.dataset.show;
  };
  flagged.forEach((button) => button.addEventListener("click", () => {
    reveal(button, !button.classList.contains("open"));
    sync();
  }));
  if (everything) {
    everything.addEventListener("click", () => {
      const open = everything.getAttribute("aria-pressed") !== "true";
      inPairs.forEach((button) => reveal(button, open));
      sync();
    });
    if (everything.dataset.start === "clear") {
      flagged.forEach((button) => reveal(button, true));
      sync();
    }
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    flagged.filter((button) => button.classList.contains("open")).forEach((button) => reveal(button, false));
    sync();
  });
  if (!grid) return;

  const filters = all("[data-filter]");
  const count = document.querySelector(".count");
  filters.forEach((button) => button.addEventListener("click", () => {
    filters.forEach((other) => press(other, other === button));
    let shown = 0;
    all(".pair").forEach((pair) => {
      pair.hidden = button.dataset.filter !== "all" && !pair.dataset.sets.split(" ").includes(button.dataset.filter);
      shown += !pair.hidden;
    });
    count.textContent = shown + (shown === 1 ? " pair" : " pairs") + " shown";
  }));

  const views = all("[data-view]");
  const wipe = document.querySelector(".wipe");
  const range = wipe.querySelector("input");
  const drag = () => {
    // 0 = all before, 100 = all after: "after" is uncovered from the right-hand side
    grid.style.setProperty("--cut", 100 - range.value + "%");
    range.setAttribute("aria-valuetext", range.value + " % after");
  };
  range.addEventListener("input", drag);
  views.forEach((button) => button.addEventListener("click", () => {
    views.forEach((other) => press(other, other === button));
    grid.className = "pairs " + button.dataset.view;
    wipe.hidden = button.dataset.view !== "slider";
    drag();
  }));
})();
