// Keys and buttons of the reading desk go one way: they say what is asked for and about which item. What
// decides counts only once that item has been on the screen for a moment: a double click approves one item.
window.learndDesk = {
  UNSEEN_MS: 250,
  DECIDE: ["a", "r", "e"],
  KEYS: ["a", "r", "e", "j", "k", "u", "t", "?"],
  shown: 0,
  since: 0,
  show(number) {
    this.shown = number;
    this.since = performance.now();
  },
  ask(key) {
    const unseen = performance.now() - this.since < this.UNSEEN_MS;
    if (!unseen || !this.DECIDE.includes(key)) emitEvent("learnd-desk", { key, shown: this.shown });
  },
  keysAre() {
    return localStorage.getItem("learnd-keys") === "off" ? "off" : "on";
  },
  switchKeys() {
    localStorage.setItem("learnd-keys", this.keysAre() === "on" ? "off" : "on");
    return this.keysAre();
  },
};

document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  const elsewhere = typing || document.querySelector(".q-dialog, .q-menu");
  const held = event.repeat || event.ctrlKey || event.altKey || event.metaKey;
  if (elsewhere || held || !learndDesk.KEYS.includes(key) || learndDesk.keysAre() === "off") return;
  learndDesk.ask(key);
});
