// Shows one target alone. Everything is on the page without it.
(() => {
  const select = document.getElementById("target");
  if (!select) return;
  select.parentElement.hidden = false;
  const show = () => {
    for (const part of document.querySelectorAll("[data-target]")) {
      part.hidden = select.value !== "" && part.dataset.target !== select.value;
    }
  };
  select.addEventListener("change", show);
  // A browser that goes back to the page keeps the choice.
  show();
})();
