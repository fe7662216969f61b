"""Inside one trial: everything that turns a config into a trained, scored model. No Optuna here."""
