// Files go up two at a time; zoom and pan. All else is in page.py.
const waiting = [], at = (selector) => document.querySelector(selector);
const RESULT = /_(pred|overlay|masks?(_\d+)?)\.\w+$/i; // in folders; `segment` passes them over too
let total = 0, ended = 0, passed = 0, busy = 0, failed = "";

function count() {
  Object.assign(at("progress"), {value: ended, max: total || 1});
  const more = passed ? `; ${passed} masks, results or hidden files passed over` : "";
  at("output").textContent = `${ended} of ${total} read${more}${failed}`;
}
async function send() {
  for (let file; (file = waiting.shift()); ended += 1, count()) {
    const url = `/upload/${window.clientId}?name=${encodeURIComponent(file.name.toWellFormed())}`;
    const answer = await fetch(url, {method: "POST", body: file}).catch(() => ({}));
    if (!answer.ok) failed = `; ${file.name} was not taken: changed, or the program has ended?`;
  }
  busy -= 1;
}
function add(files, folder) {
  const kept = files.filter(({name}) => !folder || !(name[0] === "." || RESULT.test(name)));
  passed += files.length - kept.length;
  total += kept.length;
  waiting.push(...kept.sort((a, b) => a.name.localeCompare(b.name, "en", {numeric: true})));
  for (count(); busy < Math.min(2, waiting.length + busy); busy += 1) send();
}
async function filesOf(entry) {
  const ask = (call) => new Promise((take, fail) => call(take, fail));
  if (entry.isFile) return [await ask((...to) => entry.file(...to))];
  const reader = entry.createReader(), files = [];
  for (let some; (some = await ask((...to) => reader.readEntries(...to))).length; )
    for (const one of some) files.push(...await filesOf(one));
  return files;
}
function zoom(factor, event) { // about the pointer, else the middle; factor 0: fit
  const box = at(".box"), {left, top, width, height} = box.getBoundingClientRect();
  const x = event ? event.clientX - left : width / 2, y = event ? event.clientY - top : height / 2;
  const before = Number(box.style.getPropertyValue("--zoom") || 1);
  const after = Math.min(16, Math.max(1, before * factor)), ratio = after / before;
  const to = [(box.scrollLeft + x) * ratio - x, (box.scrollTop + y) * ratio - y];
  box.style.setProperty("--zoom", after);
  box.scrollTo(...to);
}
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", async (event) => {
  event.preventDefault();
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry());
  add([...event.dataTransfer.files].filter((_, i) => !entries[i]?.isDirectory));
  for (const entry of entries) if (entry?.isDirectory) add(await filesOf(entry), true);
});
addEventListener("change", ({target}) => {
  if (target.type === "file") add([...target.files], target.webkitdirectory), (target.value = "");
});
addEventListener("wheel", (event) => { // a pinch on a touch pad is a wheel with Ctrl
  if (!event.ctrlKey || !event.target.closest(".box")) return;
  event.preventDefault();
  zoom(2 ** (-event.deltaY / 200), event);
}, {passive: false});
addEventListener("pointermove", (event) => {
  const box = event.buttons === 1 && event.pointerType === "mouse" && event.target.closest(".box");
  if (box) box.scrollBy(-event.movementX, -event.movementY);
});
addEventListener("keydown", (event) => {
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  const thumbs = [...(event.target.closest(".strip")?.children ?? [])];
  const next = step && thumbs[thumbs.indexOf(event.target) + step];
  if (next) event.preventDefault(), next.focus(), next.click();
});
addEventListener("beforeunload", (event) => total && event.preventDefault());
