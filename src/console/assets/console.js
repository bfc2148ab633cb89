// The console works without this; with it times are the viewer's, waits are seen, and the playground shows its price.
"use strict";
(() => {
  const busy = document.getElementById("busy");
  const say = (text) => { if (busy) busy.textContent = text; };

  // Times in the viewer's zone, UTC on hover.
  const localize = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (!Number.isNaN(at.getTime())) {
        time.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
      }
    }
  };
  localize(document);

  // A page that takes its time says so.
  let slow;
  const wait = () => { clearTimeout(slow); slow = setTimeout(() => say("Loading…"), 250); };
  addEventListener("pageshow", () => { clearTimeout(slow); say(""); });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    const leaves = link && !link.hasAttribute("download") && !link.getAttribute("href").startsWith("#");
    if (leaves && !event.ctrlKey && !event.metaKey && !event.shiftKey) wait();
  });
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
    else if (!event.defaultPrevented) wait();
  });

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    });
  }
  for (const select of document.querySelectorAll("select[data-submit]")) {
    select.addEventListener("change", () => { wait(); select.form.submit(); });
  }

  const piece = async (address, options = {}) => {
    const answer = await fetch(address, { ...options, headers: { "x-console-piece": "1", ...options.headers } });
    if (answer.redirected && new URL(answer.url).pathname === "/console/sign-in") location.assign(answer.url);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  };
  const put = (target, page) => {
    const whole = page.getElementById("main");
    target.replaceChildren(...(whole ?? page.body).cloneNode(true).childNodes);
    localize(target);
  };

  // The live list.
  const live = document.getElementById("live");
  setInterval(async () => {
    if (!live?.checked || document.hidden) return;
    const fresh = (await piece(location.href)).getElementById("live-region");
    const shown = document.getElementById("live-region");
    if (fresh && shown) { shown.replaceChildren(...fresh.childNodes); localize(shown); }
  }, 5000);
  if (document.querySelector("[data-refresh]")) setTimeout(() => location.reload(), 2000);

  // The playground: the price while one types, then progress and picture.
  const form = document.getElementById("playground");
  if (!form) return;
  const quote = document.getElementById("quote");
  const result = document.getElementById("result");
  const filled = () => new URLSearchParams(new FormData(form));
  let typing, latest = 0;
  const price = async () => {
    const mine = ++latest;
    const page = await piece("/console/playground/quote", { method: "POST", body: filled() });
    if (mine === latest) put(quote, page);
  };
  form.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(price, 400); });
  const follow = async (id) => {
    put(result, await piece(`/console/playground/${encodeURIComponent(id)}/progress`));
    if (result.querySelector('[data-open="true"]')) setTimeout(() => follow(id), 700);
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(slow);
    say("");
    if (event.submitter?.hasAttribute("data-quote")) return price();
    const button = form.querySelector("button[type=submit]");
    button.disabled = true;
    try {
      put(result, await piece("/console/playground/run", { method: "POST", body: filled() }));
      const run = result.querySelector("[data-run]");
      if (run) await follow(run.dataset.run);
    } finally {
      button.disabled = false;
    }
  });
})();
