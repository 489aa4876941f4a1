"use strict";
const EVERY_MS = 10_000, LIMIT_MS = 20_000;
const said = document.getElementById("said"), dialog = document.querySelector("dialog");
let asked = null;

function theme() {
  let dark = matchMedia("(prefers-color-scheme: dark)").matches;
  try { if (parent !== window) dark = parent.document.documentElement.classList.contains("dark"); } catch { /* another origin */ }
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

async function ask(url, options) {
  const answer = await fetch(url, { ...options, signal: AbortSignal.timeout(LIMIT_MS) });
  if (answer.ok) return answer.text();
  const detail = await answer.json().then((one) => one.detail, () => answer.statusText);
  throw new Error(answer.status === 401 ? "Your session has ended. Sign in again." : String(detail));
}

async function refresh(section) {
  const state = section.querySelector(".state"), body = section.querySelector(".body");
  const open = new Set([...section.querySelectorAll("details[open]")].map((one) => one.dataset.table));
  try {
    body.innerHTML = await ask(`dags/${encodeURIComponent(section.dataset.dag)}`);
    for (const one of body.querySelectorAll("details")) if (open.has(one.dataset.table)) one.open = true;
    state.hidden = true;
    section.dataset.read = new Date().toISOString().slice(11, 19);
  } catch (error) {
    const since = section.dataset.read ? ` Figures are of ${section.dataset.read} UTC.` : "";
    state.textContent = error.message + since;
    state.hidden = false;
    if (!section.dataset.read) body.replaceChildren();
  }
  section.setAttribute("aria-busy", "false");
}

async function batches(details) {
  const dag = details.closest("section").dataset.dag, place = details.querySelector("div");
  try { place.innerHTML = await ask(`dags/${encodeURIComponent(dag)}/tables/${encodeURIComponent(details.dataset.table)}`); }
  catch (error) { place.textContent = error.message; }
}

async function all() {
  if (document.hidden || dialog.open) return;
  await Promise.all([...near].map(refresh));
}

// Of many pipelines only those near the screen are asked for.
const near = new Set();
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) near.delete(target);
    else if (!near.has(target)) { near.add(target); refresh(target); }
  }
}, { rootMargin: "1500px" });

document.addEventListener("toggle", (event) => { if (event.target.open) batches(event.target); }, true);
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-question]");
  if (!button) return;
  asked = button;
  const { table, text } = JSON.parse(button.dataset.question);
  document.getElementById("asked").textContent = `${button.closest("section").dataset.dag}, table ${table}: ${text}`;
  dialog.showModal();
});
document.getElementById("no").addEventListener("click", () => dialog.close());
document.getElementById("yes").addEventListener("click", async () => {
  const section = asked.closest("section");
  dialog.close();
  try {
    await ask(`dags/${encodeURIComponent(section.dataset.dag)}/accept`, { method: "POST", headers: { "Content-Type": "application/json" }, body: asked.dataset.question });
    said.textContent = `Accepted for ${JSON.parse(asked.dataset.question).table}. It lands with the next run.`;
  } catch (error) { said.textContent = error.message; }
  refresh(section);
});
theme();
try { if (parent !== window) new MutationObserver(theme).observe(parent.document.documentElement, { attributeFilter: ["class"] }); } catch { /* another origin */ }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
document.addEventListener("visibilitychange", all);
setInterval(all, EVERY_MS);
for (const section of document.querySelectorAll("section[data-dag]")) observer.observe(section);
