for (const stage of document.querySelectorAll(".stage")) {
  const range = stage.querySelector("input");
  const cut = () => stage.style.setProperty("--cut", range.value + "%");
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    range.value = (100 * (event.clientX - box.left)) / box.width;
    cut();
  };
  range.addEventListener("input", cut);
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    follow(event);
    range.focus({ preventScroll: true });
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) follow(event);
  });
  for (const side of stage.parentElement.querySelectorAll(".sides input")) {
    side.addEventListener("change", () => (stage.dataset.right = side.value));
  }
}
