"""The world model: encoders, recurrent state-space model, decoders. Pure torch; knows no task and no run."""
