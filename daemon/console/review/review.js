// Keys and buttons of the review page take one path: they send the key, and the number of the item that is on
// the screen. Deciding keys count only once that item has been on the screen for a moment, so that a double
// click approves one item, not two.
window.learndReview = {
  READ_MS: 250,
  DECIDING: ["a", "r", "e"],
  KEYS: ["a", "r", "e", "j", "k", "u", "t", "?"],
  shown: 0,
  since: 0,
  show(number) {
    this.shown = number;
    this.since = performance.now();
  },
  mayDecide(number) {
    return this.shown === number && performance.now() - this.since >= this.READ_MS;
  },
  request(key) {
    if (this.mayDecide(this.shown) || !this.DECIDING.includes(key))
      emitEvent("learnd-review", { key, shown: this.shown });
  },
  keysState() {
    return localStorage.getItem("learnd-keys") === "off" ? "off" : "on";
  },
  switchKeys() {
    localStorage.setItem("learnd-keys", this.keysState() === "on" ? "off" : "on");
    return this.keysState();
  },
};

document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  const inOtherControl = typing || document.querySelector(".q-dialog, .q-menu");
  const held = event.repeat || event.ctrlKey || event.altKey || event.metaKey;
  if (inOtherControl || held || !learndReview.KEYS.includes(key) || learndReview.keysState() === "off") return;
  learndReview.request(key);
});
