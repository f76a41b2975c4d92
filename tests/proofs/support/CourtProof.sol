// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "./../../../contracts/interfaces/ICourt.sol";
import {Case, CaseState, CourtRules, Juror, Seat, Verdict} from "./../../../contracts/types/Cases.sol";
import {Rules} from "./Rules.sol";

/// @title The court too, in any state whatever
abstract contract CourtProof is Rules {
    string private constant _COURT_CODE = "build/forge-proofs/Court.sol/Court.json";
    uint256 private constant _SEATS = 3;

    ICourt internal court;

    function setUp() public virtual override {
        super.setUp();
        CourtRules memory rules = CourtRules({
            bond: 30e6,
            jurorFee: 5e6,
            jurorDeposit: 20e6,
            fullWeight: 8000e6,
            answerSeconds: 6 hours,
            drawSeconds: 1 hours,
            commitSeconds: 1 hours,
            revealSeconds: 1 hours
        });
        deployCodeTo(_COURT_CODE, abi.encode(escrow, rules), COURT);
        court = ICourt(COURT);
        HALMOS.enableSymbolicStorage(COURT);
    }

    /// @dev What the constructor refuses to be otherwise, and nothing ever writes again.
    function _soundRules() internal view returns (CourtRules memory rules) {
        rules = court.rules();
        vm.assume(rules.jurorFee > 0);
        vm.assume(rules.bond >= _SEATS * rules.jurorFee);
        vm.assume(rules.jurorDeposit >= rules.jurorFee);
    }

    /// @dev A case as a draw leaves it: jurors differ from one another and from every party, and their deposits are
    /// there.
    function _soundCase(bytes32 caseId, CaseState state) internal view returns (Case memory dispute) {
        dispute = court.caseOf(caseId);
        vm.assume(dispute.state == state);
        uint256 deposit = _soundRules().jurorDeposit;
        Seat[_SEATS] memory seats = court.seatsOf(caseId);
        for (uint256 i = 0; i < _SEATS; ++i) {
            address who = seats[i].juror;
            Juror memory money = court.jurorOf(who);
            bool isVacant = who == address(0);
            vm.assume(money.balance >= money.locked);
            vm.assume(_either(isVacant, money.locked >= deposit));
            vm.assume(_either(!isVacant, seats[i].commitment == 0));
            vm.assume(_either(seats[i].commitment != 0, seats[i].verdict == Verdict.None));
            vm.assume(_either(isVacant, who != seats[(i + 1) % _SEATS].juror));
            vm.assume(who != dispute.challenger);
            vm.assume(who != dispute.buyer);
            vm.assume(who != dispute.owner);
        }
    }

    /// @dev All that the court owes because of a case: balances of its people, the bond while it is taken, and what is
    /// burned. `seats` are those before the call, which may have emptied them.
    function _owed(bytes32 caseId, Seat[_SEATS] memory seats) internal view returns (uint256 sum) {
        Case memory dispute = court.caseOf(caseId);
        (address challenger, address buyer, address owner) = (dispute.challenger, dispute.buyer, dispute.owner);
        sum = _balance(challenger) + court.burned() + _if(_hasBond(dispute.state), court.rules().bond);
        sum += _if(buyer != challenger, _balance(buyer));
        sum += _if(!_either(owner == challenger, owner == buyer), _balance(owner));
        for (uint256 i = 0; i < _SEATS; ++i) {
            sum += _balance(seats[i].juror); // nobody's is 0 before and after
        }
    }

    function _balance(address who) internal view returns (uint256) {
        return court.jurorOf(who).balance;
    }

    function _assertNobodyOwes(Seat[_SEATS] memory seats) internal view {
        for (uint256 i = 0; i < _SEATS; ++i) {
            Juror memory money = court.jurorOf(seats[i].juror);
            assertGe(money.balance, money.locked);
        }
    }

    /// @dev `||` and `? :` would double the prover's paths.
    function _either(bool a, bool b) internal pure returns (bool isEither) {
        assembly ("memory-safe") {
            isEither := or(a, b)
        }
    }

    function _if(bool isWanted, uint256 amount) internal pure returns (uint256 wanted) {
        assembly ("memory-safe") {
            wanted := and(amount, sub(0, isWanted))
        }
    }

    function _hasBond(CaseState state) private pure returns (bool) {
        bool isTaken = _either(state == CaseState.Demanded, state == CaseState.Drawing);
        return _either(isTaken, _either(state == CaseState.Committing, state == CaseState.Revealing));
    }
}
