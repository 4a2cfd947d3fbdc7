/** The table of contents of what every page does. Each module is one custom element or one habit. */
import "./components/check-list.js";
import "./components/copy-button.js";
import "./components/failures.js";
import "./components/filter-form.js";
import "./components/live-part.js";
import "./components/menu-list.js";
import "./components/modal-dialog.js";
import "./components/send-once.js";
import "./components/shortcuts.js";
import "./components/tab-set.js";
import "./components/theme-choice.js";
import "./components/toast-note.js";
